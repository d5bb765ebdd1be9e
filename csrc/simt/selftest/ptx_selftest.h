// Kernels for the emulator's own tests of device/ptx.cuh: rules that are broken, and a small matrix product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/context.h"

namespace igf::selftest {

struct PtxArguments {
  const uint32_t* input;  // [64]
  uint32_t* output;       // [64]
};

struct PtxKernel {
  const char* name;
  void (*kernel)(PtxArguments);
};

struct PtxKernels {
  const PtxKernel* first;
  size_t count;
};

// One block of 32 threads each.
PtxKernels ptx_fault_kernels();
void start_ptx_fault(const PtxKernel& which, const PtxArguments& arguments, const DeviceContext& context);

// C = A B with bfloat16 A [m, k] and B [k, n], row-major, C f32; k and n are multiples of 8.
struct PtxGemm {
  const void* a;
  const void* b;
  float* c;
  int64_t m, n, k;
};

enum class GemmForm : int32_t {
  kRight,
  kSwappedRegisters,  // the second and third register of A's fragment exchanged: a wrong product
  kPlainTiles,        // tiles without swizzle: a right product, with bank conflicts
};

void start_ptx_gemm(const PtxGemm& gemm, GemmForm form, const DeviceContext& context);

}  // namespace igf::selftest
