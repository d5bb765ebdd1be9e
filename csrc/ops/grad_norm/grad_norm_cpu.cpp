// grad_norm: sums of squares of blocks, in double. Reads every element once and is bound by memory.
#include "ops/grad_norm/grad_norm.h"

#include <algorithm>

#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace igf {
namespace {

template <typename T>
IGF_INLINE double sum_of_squares_body(const T* x, int64_t size) {
  alignas(64) float tile[kTileRoom<T>];
  double total = 0.0;
  for (int64_t first = 0; first < size; first += kTile) {
    const int64_t count = std::min(kTile, size - first);
    const float* values = widened(x + first, count, tile);
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    total += sum;
  }
  return total;
}

IGF_CLONES double sum_of_squares(const float* x, int64_t size) { return sum_of_squares_body(x, size); }
IGF_CLONES double sum_of_squares(const bfloat16* x, int64_t size) { return sum_of_squares_body(x, size); }
IGF_CLONES double sum_of_squares(const half* x, int64_t size) { return sum_of_squares_body(x, size); }

double sum_of_squares(const GradNormBlock& block) {
  switch (block.type) {
    case GradNormType::kBFloat16: return sum_of_squares(static_cast<const bfloat16*>(block.data), block.size);
    case GradNormType::kHalf: return sum_of_squares(static_cast<const half*>(block.data), block.size);
    default: return sum_of_squares(static_cast<const float*>(block.data), block.size);
  }
}

}  // namespace

void grad_norm_partials(const GradNormBlock* blocks, int64_t count, double* partials) {
  parallel_for(0, count, 1, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) partials[i] = sum_of_squares(blocks[i]);
  });
}

}  // namespace igf
