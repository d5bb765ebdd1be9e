// gae: schemas and the CPU execution.
#include "ops/gae/gae_call.h"

namespace igf {
namespace {

void gae_cpu(GaeArguments& arguments, const Tensor&) { gae_forward(arguments); }

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "gae(Tensor rewards, Tensor values, Tensor loss_mask, float gamma, float lam) -> "
      "(Tensor advantages, Tensor returns)");
  m.def(
      "shaped_gae(Tensor logprobs, Tensor ref_logprobs, Tensor scores, Tensor values, Tensor loss_mask, float kl_coef, "
      "float gamma, float lam) -> (Tensor kl, Tensor rewards, Tensor advantages, Tensor returns)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("gae", TORCH_BOX(&igf::gae_call<&igf::gae_cpu>));
  m.impl("shaped_gae", TORCH_BOX(&igf::shaped_gae_call<&igf::gae_cpu>));
}
