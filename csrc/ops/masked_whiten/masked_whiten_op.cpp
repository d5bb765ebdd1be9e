// masked_whiten: schema and the CPU execution.
#include "ops/masked_whiten/masked_whiten_call.h"

namespace igf {
namespace {

void whiten_cpu(MaskedWhitenArguments& arguments, const Tensor&) { masked_whiten_forward(arguments); }

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("masked_whiten(Tensor x, Tensor loss_mask, bool shift_mean, float eps) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("masked_whiten", TORCH_BOX(&igf::masked_whiten_call<&igf::whiten_cpu>));
}
