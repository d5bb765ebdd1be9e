// invariant_linear: schemas and the CPU execution.
#include "ops/invariant_linear/invariant_linear_call.h"

namespace igf {
namespace {

void invariant_linear_out_cpu(Tensor x, Tensor weight, OptionalTensor bias, Tensor out) {
  invariant_linear(invariant_linear_call(x, weight, bias, out).arguments);
}

Tensor invariant_linear_cpu(Tensor x, Tensor weight, OptionalTensor bias) {
  check_invariant_linear(x, weight, bias);
  const Tensor y = new_empty(x, {x.size(0), weight.size(0)}, x.scalar_type());
  invariant_linear_out_cpu(x, weight, bias, y);
  return y;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("invariant_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  // out: x's dtype or float32.
  m.def("invariant_linear_out(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) out) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("invariant_linear", TORCH_BOX(&igf::invariant_linear_cpu));
  m.impl("invariant_linear_out", TORCH_BOX(&igf::invariant_linear_out_cpu));
}
