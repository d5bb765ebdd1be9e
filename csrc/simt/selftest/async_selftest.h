// Kernels for the emulator's own tests of device/ptx_barriers.cuh and device/ptx_bulk.cuh: a table a file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/tensor_map.cuh"

namespace igf::selftest {

// Tensors of 64 rows of 32 floats; tiles of 8 rows, 1024 bytes, in the 128-byte swizzle but for `plain`.
struct AsyncArguments {
  const float* input;
  float* output;  // 0xFF
  float* sums;    // zero
  device::TensorMap in;
  device::TensorMap plain;   // of the input, in order
  device::TensorMap beyond;  // of the input, as if it had 128 rows
  device::TensorMap out;
  device::TensorMap added;   // of the sums
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

AsyncKernels mbarrier_kernels();
AsyncKernels copy_kernels();
AsyncKernels proxy_kernels();
AsyncKernels register_kernels();

}  // namespace igf::selftest
