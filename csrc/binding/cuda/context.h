// From a CUDA tensor to the DeviceContext its kernels are launched with.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "binding/tensor.h"
#include "device/context.h"

namespace igf {

// Makes a device current for a scope.
using torch::stable::accelerator::DeviceGuard;

// The current stream of the tensor's device. Raises RuntimeError under a torch that was built without CUDA.
DeviceContext device_context(const Tensor& tensor);

// The element type of a tensor; any but f32, bf16 and f16 is an error naming the op.
Element element_of(const char* op, const Tensor& tensor);

// Tells whether the tensor's first element stands on a 16-byte boundary; true for none.
bool is_aligned(const OptionalTensor& tensor);

}  // namespace igf
