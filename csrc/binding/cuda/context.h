// From a CUDA tensor to the DeviceContext its kernels are launched with; from a CPU tensor, for the emulator's build.
#pragma once

#if !defined(IGF_SIMT)
#include <torch/csrc/stable/accelerator.h>
#endif

#include "binding/dtype.h"
#include "binding/tensor.h"
#include "device/context.h"

namespace igf {

// The dispatch key that <op>_cuda_op.cpp registers for: STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m).
// The emulator's executions of the same operators are called for by this key alone (redispatch), never by a device.
#if defined(IGF_SIMT)
#define IGF_DEVICE_KEY PrivateUse1
#else
#define IGF_DEVICE_KEY CUDA
#endif

// Makes a device current for a scope.
#if defined(IGF_SIMT)
struct DeviceGuard {
  explicit DeviceGuard(int32_t) {}
};
#else
using torch::stable::accelerator::DeviceGuard;
#endif

// The current stream of the tensor's device, with at least `arrivals` counters. Raises RuntimeError under a torch that was
// built without CUDA.
DeviceContext device_context(const Tensor& tensor, int64_t arrivals = kArrivalCounters);

// Tells whether the tensor's first element stands on a 16-byte boundary; true for none.
inline bool is_aligned(const OptionalTensor& tensor) {
  return !tensor.has_value() || reinterpret_cast<uintptr_t>(tensor->const_data_ptr()) % 16 == 0;
}

}  // namespace igf
