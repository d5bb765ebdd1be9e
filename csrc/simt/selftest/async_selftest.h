// Kernels for the emulator's own tests of device/ptx_barriers.cuh and device/ptx_bulk.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/tensor_map.cuh"

namespace igf::selftest {

// Tiles are 8 rows of 32 floats: 1024 bytes, in the 128-byte swizzle but for `plain`.
struct AsyncArguments {
  const float* input;  // [64, 32]
  float* output;       // [64, 32], 0xFF
  float* sums;         // [64, 32], zero
  device::TensorMap in;
  device::TensorMap plain;  // of the input, in order
  device::TensorMap out;
  device::TensorMap added;  // of the sums
};

struct AsyncKernel {
  const char* name;
  void (*kernel)(AsyncArguments);
  int threads = 64;
};

struct AsyncKernels {
  const AsyncKernel* first;
  size_t count;
};

AsyncKernels async_kernels();
void start_async(const AsyncKernel& which, AsyncArguments arguments, const DeviceContext& context);

}  // namespace igf::selftest
