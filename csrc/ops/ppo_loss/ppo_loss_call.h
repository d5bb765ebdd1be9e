// ppo_loss between the dispatcher and its executions: checks and allocation, the same on every device.
#pragma once

#include "binding/tensor.h"
#include "ops/ppo_loss/ppo_loss.h"

namespace igf {

namespace detail {

inline Tensor ppo_loss_checked(const char* name, const Tensor& tensor, const Tensor& like) {
  check_dtype("ppo_loss", name, tensor, ScalarType::Float);
  check_same_sizes("ppo_loss", name, tensor, like);
  return dense(tensor);
}

inline OptionalTensor ppo_loss_checked(const char* name, const OptionalTensor& tensor, const Tensor& like) {
  return tensor.has_value() ? OptionalTensor(ppo_loss_checked(name, *tensor, like)) : std::nullopt;
}

inline Tensor ppo_loss_checked_mask(const Tensor& mask, const Tensor& like) {
  check_dtype("ppo_loss", "loss_mask", mask, ScalarType::Bool);
  check_same_sizes("ppo_loss", "loss_mask", mask, like);
  return dense(mask);
}

}  // namespace detail

// kRun computes what the arguments describe, on the device of the tensor.
template <void (*kRun)(PpoLossArguments&, const Tensor&)>
std::tuple<Tensor, Tensor, Tensor, Tensor> ppo_loss_call(
    Tensor logprobs, Tensor old_logprobs, Tensor advantages, Tensor values, Tensor old_values, Tensor returns,
    Tensor loss_mask, OptionalTensor entropy, OptionalTensor ref_logprobs, double cliprange, double cliprange_value,
    double vf_coef, double entropy_coef, double kl_loss_coef, double denominator, bool with_gradient) {
  using detail::ppo_loss_checked;
  IGF_CHECK(logprobs.dim() == 2, "ppo_loss: logprobs must be a matrix");
  const Tensor mask = detail::ppo_loss_checked_mask(loss_mask, logprobs);
  const Tensor lp = ppo_loss_checked("logprobs", logprobs, logprobs);
  const Tensor old_lp = ppo_loss_checked("old_logprobs", old_logprobs, logprobs);
  const Tensor advantage = ppo_loss_checked("advantages", advantages, logprobs);
  const Tensor value = ppo_loss_checked("values", values, logprobs);
  const Tensor old_value = ppo_loss_checked("old_values", old_values, logprobs);
  const Tensor target = ppo_loss_checked("returns", returns, logprobs);
  const OptionalTensor bonus = ppo_loss_checked("entropy", entropy, logprobs);
  const OptionalTensor reference = ppo_loss_checked("ref_logprobs", ref_logprobs, logprobs);
  const int64_t rows = with_gradient ? lp.size(0) : 0;
  const Tensor grad_logprobs = new_empty(lp, {rows, lp.size(1)}, ScalarType::Float);
  const Tensor grad_values = new_empty(lp, {rows, lp.size(1)}, ScalarType::Float);
  const Tensor loss = new_empty(lp, {}, ScalarType::Float), stats = new_empty(lp, {kPpoSums}, ScalarType::Float);
  PpoLossArguments a{};
  a.logprobs = data<float>(lp);
  a.old_logprobs = data<float>(old_lp);
  a.advantages = data<float>(advantage);
  a.values = data<float>(value);
  a.old_values = data<float>(old_value);
  a.returns = data<float>(target);
  a.mask = data<uint8_t>(mask);
  a.entropy = data<float>(bonus);
  a.ref_logprobs = data<float>(reference);
  a.grad_logprobs = with_gradient ? mutable_data<float>(grad_logprobs) : nullptr;
  a.grad_values = with_gradient ? mutable_data<float>(grad_values) : nullptr;
  a.loss = mutable_data<float>(loss);
  a.stats = mutable_data<float>(stats);
  a.count = lp.numel();
  a.cliprange = static_cast<float>(cliprange);
  a.cliprange_value = static_cast<float>(cliprange_value);
  a.vf_coef = vf_coef;
  a.entropy_coef = entropy_coef;
  a.kl_loss_coef = kl_loss_coef;
  a.denominator = denominator;
  kRun(a, lp);
  return {loss, stats, grad_logprobs, grad_values};
}

template <void (*kRun)(PpoLossBackward&, const Tensor&)>
Tensor ppo_loss_backward_call(Tensor grad_logprobs, Tensor grad_values, OptionalTensor loss_mask, Tensor dloss,
                              double entropy_coef, double denominator) {
  constexpr const char* kOp = "ppo_loss_backward";
  check_dtype(kOp, "dloss", dloss, ScalarType::Float);
  IGF_CHECK(dloss.numel() == 1, kOp, ": dloss must be one number");
  for (const Tensor& gradient : {grad_logprobs, grad_values}) {
    check_dtype(kOp, "a gradient", gradient, ScalarType::Float);
    check_same_sizes(kOp, "a gradient", gradient, grad_logprobs);
    IGF_CHECK(gradient.dim() == 2 && gradient.is_contiguous(), kOp, ": a gradient must be a dense matrix");
  }
  OptionalTensor mask;
  if (loss_mask.has_value()) mask = detail::ppo_loss_checked_mask(*loss_mask, grad_logprobs);
  const int64_t rows = mask.has_value() ? grad_logprobs.size(0) : 0;
  const Tensor grad_entropy = new_empty(grad_logprobs, {rows, grad_logprobs.size(1)}, ScalarType::Float);
  PpoLossBackward a{};
  a.grad_logprobs = mutable_data<float>(grad_logprobs);
  a.grad_values = mutable_data<float>(grad_values);
  a.mask = data<uint8_t>(mask);
  a.dloss = data<float>(dloss);
  a.grad_entropy = mask.has_value() ? mutable_data<float>(grad_entropy) : nullptr;
  a.count = grad_logprobs.numel();
  a.entropy_coef = static_cast<float>(entropy_coef);
  a.denominator = static_cast<float>(denominator);
  kRun(a, grad_logprobs);
  return grad_entropy;
}

}  // namespace igf
