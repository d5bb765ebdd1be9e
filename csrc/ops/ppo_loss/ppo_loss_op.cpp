// ppo_loss: schema, checks and the CPU execution.
#include "ops/ppo_loss/ppo_loss.h"

#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "ppo_loss";

Tensor checked(const char* name, const Tensor& tensor, const Tensor& like) {
  check_dtype(kOp, name, tensor, ScalarType::Float);
  check_same_sizes(kOp, name, tensor, like);
  return dense(tensor);
}

OptionalTensor checked(const char* name, const OptionalTensor& tensor, const Tensor& like) {
  return tensor.has_value() ? OptionalTensor(checked(name, *tensor, like)) : std::nullopt;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ppo_loss_cpu(
    Tensor logprobs, Tensor old_logprobs, Tensor advantages, Tensor values, Tensor old_values, Tensor returns,
    Tensor loss_mask, OptionalTensor entropy, OptionalTensor ref_logprobs, double cliprange, double cliprange_value,
    double vf_coef, double entropy_coef, double kl_loss_coef, double denominator, bool with_gradient) {
  IGF_CHECK(logprobs.dim() == 2, kOp, ": logprobs must be a matrix");
  check_dtype(kOp, "loss_mask", loss_mask, ScalarType::Bool);
  check_same_sizes(kOp, "loss_mask", loss_mask, logprobs);
  const Tensor mask = dense(loss_mask), lp = checked("logprobs", logprobs, logprobs);
  const Tensor old_lp = checked("old_logprobs", old_logprobs, logprobs);
  const Tensor advantage = checked("advantages", advantages, logprobs), value = checked("values", values, logprobs);
  const Tensor old_value = checked("old_values", old_values, logprobs), target = checked("returns", returns, logprobs);
  const OptionalTensor bonus = checked("entropy", entropy, logprobs);
  const OptionalTensor reference = checked("ref_logprobs", ref_logprobs, logprobs);
  const int64_t rows = with_gradient ? lp.size(0) : 0;
  const Tensor grad_logprobs = new_empty(lp, {rows, lp.size(1)}, ScalarType::Float);
  const Tensor grad_values = new_empty(lp, {rows, lp.size(1)}, ScalarType::Float);
  double sums[kPpoSums];
  ppo_loss_forward(
      {data<float>(lp), data<float>(old_lp), data<float>(advantage), data<float>(value), data<float>(old_value),
       data<float>(target), data<uint8_t>(mask), data<float>(bonus), data<float>(reference),
       with_gradient ? mutable_data<float>(grad_logprobs) : nullptr,
       with_gradient ? mutable_data<float>(grad_values) : nullptr, lp.numel(), static_cast<float>(cliprange),
       static_cast<float>(cliprange_value), static_cast<float>(kl_loss_coef)},
      sums);
  const Tensor loss = new_empty(lp, {}, ScalarType::Float), stats = new_empty(lp, {kPpoSums}, ScalarType::Float);
  const double total = sums[0] + vf_coef * sums[1] - entropy_coef * sums[2] + kl_loss_coef * sums[7];
  *mutable_data<float>(loss) = static_cast<float>(total / denominator);
  for (int s = 0; s < kPpoSums; ++s) mutable_data<float>(stats)[s] = static_cast<float>(sums[s] / denominator);
  return {loss, stats, grad_logprobs, grad_values};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // The gradients are those of the sums before vf_coef and denominator; without with_gradient they have no rows.
  m.def(
      "ppo_loss(Tensor logprobs, Tensor old_logprobs, Tensor advantages, Tensor values, Tensor old_values, "
      "Tensor returns, Tensor loss_mask, Tensor? entropy, Tensor? ref_logprobs, float cliprange, "
      "float cliprange_value, float vf_coef, float entropy_coef, float kl_loss_coef, float denominator, "
      "bool with_gradient) -> (Tensor loss, Tensor stats, Tensor grad_logprobs, Tensor grad_values)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("ppo_loss", TORCH_BOX(&igf::ppo_loss_cpu)); }
