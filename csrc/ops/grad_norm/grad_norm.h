// The L2 norm over all elements of a list of tensors: sqrt(sum x^2).
//
// Source: the global norm that gradients are clipped by, Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 3.2.
//
// Shapes: any; dtypes f32, bf16, f16, freely mixed; result [] f32.
// Numbers: squares are added in f32 over short runs (CPU: a tile of 1024; CUDA: the 16 or 32 elements that a thread
// reads at once) where none is too large or too small for it, else in double or scaled; all further sums in double, one
// partial result for each block of fixed size of a tensor, added in an order that hangs on the list alone: equal bits
// for any number of threads, and on CUDA for any number of multiprocessors. NaN and infinity go through.
#pragma once

#include <cstdint>

#include "device/context.h"
#include "device/tensor_table.h"

namespace igf {

// CPU.
inline constexpr int64_t kGradNormBlock = 1 << 16;

struct GradNormBlock {
  const void* data;
  int64_t size;  // elements, at most kGradNormBlock
  Element element;
};

// partials [count] double, written: the sum of squares of each block.
void grad_norm_partials(const GradNormBlock* blocks, int64_t count, double* partials);

// CUDA: a tensor, as a row of the table that the kernel walks over.
inline constexpr int64_t kGradNormChunk = 1 << 15;

struct GradNormRow {
  const void* data;
  int64_t size;
  Element element;
  int32_t first_chunk;
  int64_t unused;  // rows are whole 16-byte words
};

struct GradNormCuda {
  TensorTable<GradNormRow> table;
  double* partials;    // [table.chunks]
  float* norm;         // []: written
  uint32_t* arrivals;  // set by the launcher
};

// One launch for all tensors, after those that carry the table: `words` to table.rows on.
void grad_norm_cuda(GradNormCuda arguments, const std::vector<int64_t>& words, int64_t* table_memory,
                    const DeviceContext& context);

}  // namespace igf
