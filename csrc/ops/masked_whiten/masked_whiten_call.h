// masked_whiten between the dispatcher and its executions: checks and allocation, the same on every device.
#pragma once

#include "binding/tensor.h"
#include "ops/masked_whiten/masked_whiten.h"

namespace igf {

// kRun computes what the arguments describe, on the device of the tensor.
template <void (*kRun)(MaskedWhitenArguments&, const Tensor&)>
Tensor masked_whiten_call(Tensor x, Tensor loss_mask, bool shift_mean, double eps) {
  constexpr const char* kOp = "masked_whiten";
  check_dtype(kOp, "x", x, ScalarType::Float);
  check_dtype(kOp, "loss_mask", loss_mask, ScalarType::Bool);
  check_same_sizes(kOp, "loss_mask", loss_mask, x);
  const Tensor input = dense(x), mask = dense(loss_mask);
  const Tensor y = new_empty_like(input);
  MaskedWhitenArguments a{};
  a.x = data<float>(input);
  a.mask = data<uint8_t>(mask);
  a.y = mutable_data<float>(y);
  a.count = input.numel();
  a.shift_mean = shift_mean;
  a.eps = eps;
  kRun(a, input);
  return y;
}

}  // namespace igf
