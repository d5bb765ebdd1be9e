// masked_whiten: schema, checks and the CPU execution.
#include "ops/masked_whiten/masked_whiten.h"

#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "masked_whiten";

Tensor masked_whiten_cpu(Tensor x, Tensor loss_mask, bool shift_mean, double eps) {
  check_dtype(kOp, "x", x, ScalarType::Float);
  check_dtype(kOp, "loss_mask", loss_mask, ScalarType::Bool);
  check_same_sizes(kOp, "loss_mask", loss_mask, x);
  const Tensor input = dense(x), mask = dense(loss_mask);
  const Tensor y = torch::stable::empty_like(input);
  masked_whiten_forward(
      {data<float>(input), data<uint8_t>(mask), mutable_data<float>(y), input.numel(), shift_mean, eps});
  return y;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("masked_whiten(Tensor x, Tensor loss_mask, bool shift_mean, float eps) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("masked_whiten", TORCH_BOX(&igf::masked_whiten_cpu)); }
