// The L2 norm over all elements of a list of tensors: sqrt(sum x^2).
//
// Source: the global norm that gradients are clipped by, Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, section 3.2.
//
// Shapes: any; dtypes f32, bf16, f16, freely mixed; result [] f32.
// Numbers: squares in f32 inside a tile of 1024 where none is too large or too small for it, else in double; all further
// sums in double, one partial result for each kGradNormBlock elements of a tensor, added in the order of the list: equal
// bits for any number of threads. NaN and infinity go through.
#pragma once

#include <cstdint>

namespace igf {

inline constexpr int64_t kGradNormBlock = 1 << 16;

enum class GradNormType { kFloat, kBFloat16, kHalf };

struct GradNormBlock {
  const void* data;
  int64_t size;  // elements, at most kGradNormBlock
  GradNormType type;
};

// partials [count] double, written: the sum of squares of each block.
void grad_norm_partials(const GradNormBlock* blocks, int64_t count, double* partials);

}  // namespace igf
