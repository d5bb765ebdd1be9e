// ppo_loss: schemas and the CPU execution.
#include "ops/ppo_loss/ppo_loss_call.h"

namespace igf {
namespace {

void forward_cpu(PpoLossArguments& arguments, const Tensor&) { ppo_loss_forward(arguments); }
void backward_cpu(PpoLossBackward& arguments, const Tensor&) { ppo_loss_backward(arguments); }

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // The gradients are whole for a loss whose own gradient is 1; without with_gradient they have no rows.
  m.def(
      "ppo_loss(Tensor logprobs, Tensor old_logprobs, Tensor advantages, Tensor values, Tensor old_values, "
      "Tensor returns, Tensor loss_mask, Tensor? entropy, Tensor? ref_logprobs, float cliprange, "
      "float cliprange_value, float vf_coef, float entropy_coef, float kl_loss_coef, float denominator, "
      "bool with_gradient) -> (Tensor loss, Tensor stats, Tensor grad_logprobs, Tensor grad_values)");
  // Multiplies both by dloss; without a mask the gradient of the entropy is not wanted and has no rows.
  m.def(
      "ppo_loss_backward(Tensor(a!) grad_logprobs, Tensor(b!) grad_values, Tensor? loss_mask, Tensor dloss, "
      "float entropy_coef, float denominator) -> Tensor grad_entropy");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("ppo_loss", TORCH_BOX(&igf::ppo_loss_call<&igf::forward_cpu>));
  m.impl("ppo_loss_backward", TORCH_BOX(&igf::ppo_loss_backward_call<&igf::backward_cpu>));
}
