// gae: registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/gae/gae_call.h"

namespace igf {
namespace {

void gae_cuda(GaeArguments& a, const Tensor& like) {
  const DeviceGuard guard(like.get_device_index());
  a.vectors = a.columns % 4 == 0 && stands_on(a.mask, 4);
  for (const float* pointer : {a.rewards, a.logprobs, a.ref_logprobs, a.values}) {
    a.vectors = a.vectors && stands_on(pointer, 16);
  }
  gae_forward_cuda(a, device_context(like));
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("gae", TORCH_BOX(&igf::gae_call<&igf::gae_cuda>));
  m.impl("shaped_gae", TORCH_BOX(&igf::shaped_gae_call<&igf::gae_cuda>));
}
