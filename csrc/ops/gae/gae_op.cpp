// gae: schema, checks and the CPU execution.
#include "ops/gae/gae.h"

#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "gae";

std::tuple<Tensor, Tensor> gae_cpu(Tensor rewards, Tensor values, Tensor loss_mask, double gamma, double lam) {
  IGF_CHECK(rewards.dim() == 2, kOp, ": rewards must be a matrix");
  check_dtype(kOp, "rewards", rewards, ScalarType::Float);
  check_dtype(kOp, "values", values, ScalarType::Float);
  check_dtype(kOp, "loss_mask", loss_mask, ScalarType::Bool);
  check_same_sizes(kOp, "values", values, rewards);
  check_same_sizes(kOp, "loss_mask", loss_mask, rewards);
  const Tensor r = dense(rewards), v = dense(values), mask = dense(loss_mask);
  const Tensor advantages = new_empty(r, {r.size(0), r.size(1)}, ScalarType::Float);
  const Tensor returns = new_empty(r, {r.size(0), r.size(1)}, ScalarType::Float);
  gae_forward({data<float>(r), data<float>(v), data<uint8_t>(mask), mutable_data<float>(advantages),
               mutable_data<float>(returns), r.size(0), r.size(1), static_cast<float>(gamma),
               static_cast<float>(lam)});
  return {advantages, returns};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "gae(Tensor rewards, Tensor values, Tensor loss_mask, float gamma, float lam) -> "
      "(Tensor advantages, Tensor returns)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("gae", TORCH_BOX(&igf::gae_cpu)); }
