// gae between the dispatcher and its executions: checks and allocation, the same on every device.
#pragma once

#include "binding/tensor.h"
#include "ops/gae/gae.h"

namespace igf {

namespace detail {

inline Tensor gae_checked(const char* op, const char* name, const Tensor& tensor, const Tensor& like, ScalarType dtype) {
  check_dtype(op, name, tensor, dtype);
  check_same_sizes(op, name, tensor, like);
  return dense(tensor);
}

}  // namespace detail

// kRun computes what the arguments describe, on the device of the tensor.
template <void (*kRun)(GaeArguments&, const Tensor&)>
std::tuple<Tensor, Tensor> gae_call(Tensor rewards, Tensor values, Tensor loss_mask, double gamma, double lam) {
  constexpr const char* kOp = "gae";
  IGF_CHECK(rewards.dim() == 2, kOp, ": rewards must be a matrix");
  const Tensor r = detail::gae_checked(kOp, "rewards", rewards, rewards, ScalarType::Float);
  const Tensor v = detail::gae_checked(kOp, "values", values, rewards, ScalarType::Float);
  const Tensor mask = detail::gae_checked(kOp, "loss_mask", loss_mask, rewards, ScalarType::Bool);
  const Tensor advantages = new_empty_like(r), returns = new_empty_like(r);
  GaeArguments a{};
  a.rewards = data<float>(r);
  a.values = data<float>(v);
  a.mask = data<uint8_t>(mask);
  a.advantages = mutable_data<float>(advantages);
  a.returns = mutable_data<float>(returns);
  a.rows = r.size(0);
  a.columns = r.size(1);
  a.gamma = static_cast<float>(gamma);
  a.decay = static_cast<float>(gamma * lam);
  kRun(a, r);
  return {advantages, returns};
}

template <void (*kRun)(GaeArguments&, const Tensor&)>
std::tuple<Tensor, Tensor, Tensor, Tensor> shaped_gae_call(Tensor logprobs, Tensor ref_logprobs, Tensor scores,
                                                           Tensor values, Tensor loss_mask, double kl_coef, double gamma,
                                                           double lam) {
  constexpr const char* kOp = "shaped_gae";
  IGF_CHECK(logprobs.dim() == 2, kOp, ": logprobs must be a matrix");
  check_dtype(kOp, "scores", scores, ScalarType::Float);
  check_vector(kOp, "scores", scores, logprobs.size(0));
  const Tensor lp = detail::gae_checked(kOp, "logprobs", logprobs, logprobs, ScalarType::Float);
  const Tensor reference = detail::gae_checked(kOp, "ref_logprobs", ref_logprobs, logprobs, ScalarType::Float);
  const Tensor v = detail::gae_checked(kOp, "values", values, logprobs, ScalarType::Float);
  const Tensor mask = detail::gae_checked(kOp, "loss_mask", loss_mask, logprobs, ScalarType::Bool);
  const Tensor score = dense(scores);
  const Tensor kl = new_empty_like(lp), rewards = new_empty_like(lp);
  const Tensor advantages = new_empty_like(lp), returns = new_empty_like(lp);
  GaeArguments a{};
  a.logprobs = data<float>(lp);
  a.ref_logprobs = data<float>(reference);
  a.scores = data<float>(score);
  a.values = data<float>(v);
  a.mask = data<uint8_t>(mask);
  a.kl = mutable_data<float>(kl);
  a.shaped = mutable_data<float>(rewards);
  a.advantages = mutable_data<float>(advantages);
  a.returns = mutable_data<float>(returns);
  a.rows = lp.size(0);
  a.columns = lp.size(1);
  a.gamma = static_cast<float>(gamma);
  a.decay = static_cast<float>(gamma * lam);
  a.kl_coef = static_cast<float>(kl_coef);
  kRun(a, lp);
  return {kl, rewards, advantages, returns};
}

}  // namespace igf
