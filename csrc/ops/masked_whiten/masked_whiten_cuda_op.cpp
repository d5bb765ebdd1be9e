// masked_whiten: registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/masked_whiten/masked_whiten_call.h"

namespace igf {
namespace {

void whiten_cuda(MaskedWhitenArguments& a, const Tensor& like) {
  const DeviceGuard guard(like.get_device_index());
  const int64_t tiles = masked_whiten_tiles(a.count);
  const Tensor moments = new_empty(like, {3, tiles}, ScalarType::Double);
  const Tensor scale = new_empty(like, {4}, ScalarType::Float);
  const Tensor earlier = new_empty(like, {tiles}, ScalarType::Int);
  a.moments = mutable_data<double>(moments);
  a.scale = mutable_data<float>(scale);
  a.earlier = mutable_data<int32_t>(earlier);
  a.aligned = stands_on(a.x, 16) && stands_on(a.mask, 4);
  masked_whiten_forward_cuda(a, device_context(like));
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("masked_whiten", TORCH_BOX(&igf::masked_whiten_call<&igf::whiten_cuda>));
}
