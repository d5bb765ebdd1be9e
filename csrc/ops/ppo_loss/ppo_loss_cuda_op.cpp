// ppo_loss: registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/ppo_loss/ppo_loss_call.h"

namespace igf {
namespace {

void forward_cuda(PpoLossArguments& a, const Tensor& like) {
  const DeviceGuard guard(like.get_device_index());
  const Tensor partials = new_empty(like, {ppo_loss_tiles(a.count), kPpoSums}, ScalarType::Double);
  a.partials = mutable_data<double>(partials);
  a.aligned = stands_on(a.mask, 4);
  for (const float* pointer : {a.logprobs, a.old_logprobs, a.advantages, a.values, a.old_values, a.returns, a.entropy,
                               a.ref_logprobs}) {
    a.aligned = a.aligned && stands_on(pointer, 16);
  }
  ppo_loss_forward_cuda(a, device_context(like));
}

void backward_cuda(PpoLossBackward& a, const Tensor& like) {
  const DeviceGuard guard(like.get_device_index());
  a.aligned = stands_on(a.grad_logprobs, 16) && stands_on(a.grad_values, 16) && stands_on(a.mask, 4);
  ppo_loss_backward_cuda(a, device_context(like));
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("ppo_loss", TORCH_BOX(&igf::ppo_loss_call<&igf::forward_cuda>));
  m.impl("ppo_loss_backward", TORCH_BOX(&igf::ppo_loss_backward_call<&igf::backward_cuda>));
}
