// Kernels for the emulator's own tests of device/ptx_wgmma.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/context.h"
#include "device/tensor_map.cuh"

namespace igf::selftest {

// One product whose operands come as they shall lie in shared memory, so that a test can lay them out by itself.
struct WgmmaOnce {
  const uint32_t* a;  // the image of A's tile, or with a_in_registers the words of thread t: a[4 t] to a[4 t + 3]
  const uint32_t* b;
  const float* sums;  // of thread t: sums[columns / 2 t + i]
  float* output;
  int a_words, b_words;  // of the images, multiples of 4
  int columns;
  bool half;
  bool a_in_registers, transpose_a, transpose_b;
  int swizzle_a, leading_a, stride_a, advance_a;
  int swizzle_b, leading_b, stride_b, advance_b;
  bool add;
};

// Rules that are broken: one block each, of the table's threads.
struct WgmmaFault {
  const uint32_t* input;  // [1024]: two tiles of 64 x 16 elements of bfloat16, as the kernels lay them
  float* output;          // [128 * 32]: the sums of a warpgroup's threads
};

struct WgmmaKernel {
  const char* name;
  int threads;
  void (*kernel)(WgmmaFault);
};

struct WgmmaKernels {
  const WgmmaKernel* first;
  size_t count;
};

WgmmaKernels wgmma_fault_kernels();  // of registers and threads
WgmmaKernels wgmma_tile_kernels();   // of descriptors
WgmmaKernels wgmma_race_kernels();   // of shared memory
void start_wgmma_fault(const WgmmaKernel& which, const WgmmaFault& arguments, const DeviceContext& context);

// C = A B with bfloat16 A [m, k] and B [k, n], row-major, C f32; k and n are multiples of 8. The maps are made by the
// start.
struct WgmmaGemm {
  device::TensorMap map_a, map_b;
  float* c;
  int64_t m, n, k;
};

void start_wgmma_gemm(const WgmmaGemm& gemm, const void* a, const void* b, const DeviceContext& context);

void start_wgmma_once(const WgmmaOnce& product, const DeviceContext& context);

}  // namespace igf::selftest
