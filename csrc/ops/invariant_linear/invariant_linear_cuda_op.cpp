// invariant_linear: registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/invariant_linear/invariant_linear_call.h"

namespace igf {
namespace {

// Rows of 16-bit elements in whole vectors of 16 bytes go to the tensor cores wherever they stand, since another kernel
// would give other bits: what does not stand on 16 bytes is copied there. f32 has one order for all.
Tensor on_vectors(const Tensor& tensor) {
  const bool stays = tensor.element_size() != 2 || last_size(tensor) % 8 != 0 || is_aligned(tensor);
  return stays ? tensor : detail::copied(torch::stable::clone(tensor), tensor);
}

void invariant_linear_out_device(Tensor x, Tensor weight, OptionalTensor bias, Tensor out) {
  const DeviceGuard guard(x.get_device_index());
  check_invariant_linear(x, weight, bias);
  const InvariantLinearCall call = invariant_linear_call(on_vectors(dense(x)), on_vectors(dense(weight)), bias, out);
  invariant_linear_cuda(call.arguments, device_context(x));
}

Tensor invariant_linear_device(Tensor x, Tensor weight, OptionalTensor bias) {
  check_invariant_linear(x, weight, bias);
  const DeviceGuard guard(x.get_device_index());
  const Tensor y = new_empty(x, {x.size(0), weight.size(0)}, x.scalar_type());
  invariant_linear_out_device(x, weight, bias, y);
  return y;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("invariant_linear", TORCH_BOX(&igf::invariant_linear_device));
  m.impl("invariant_linear_out", TORCH_BOX(&igf::invariant_linear_out_device));
}
