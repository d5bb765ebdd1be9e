// Softmax over one row of logits, in pieces: largest value, sum of exponentials, probabilities. Torch-free, inline.
//
// Numbers: everything in f32 whatever T is; sums keep one f32 partial a tile and vector lane and add tiles in double,
// so that the error does not grow with the length of the row. A NaN in the row makes the sum NaN.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/clones.h"
#include "cpu/tile.h"
#include "device/math.h"

namespace igf::softmax {

// What a row comes down to: for z = scale * x, max over x, sum_j exp(z_j - z_max), sum_j exp(z_j - z_max) (z_j - z_max).
struct Row {
  float largest;
  double sum;
  double weighted;
};

// NaN is passed over: it shows in the sum.
template <typename T>
IGF_INLINE float largest_of(const T* x, int64_t count) {
  float largest = -math::kInfinity;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(x[i]);
    largest = value > largest ? value : largest;
  }
  return largest;
}

// Weighted: also the sum that the entropy needs; else Row::weighted is 0.
template <bool Weighted, typename T>
IGF_INLINE Row row_of(const T* x, int64_t count, float scale) {
  alignas(64) float tile[kTileRoom<T>];
  Row row{largest_of(x, count), 0.0, 0.0};
  const float largest = row.largest;
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t length = std::min(kTile, count - first);
    const float* values = widened(x + first, length, tile);
    float sum = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(+ : sum, weighted)
    for (int64_t i = 0; i < length; ++i) {
      const float z = (values[i] - largest) * scale;
      const float e = math::exp(z);
      sum += e;
      if constexpr (Weighted) weighted += e * z;
    }
    row.sum += sum;
    if constexpr (Weighted) row.weighted += weighted;
  }
  return row;
}

// x_i = f(p_i, log p_i) in place, for p the probabilities of the row that `row` was made from; log p_i is computed as
// z_i - z_max - log(sum).
template <typename T, typename Function>
IGF_INLINE void replace_row(T* x, int64_t count, float scale, const Row& row, float log_sum, const Function& f) {
  alignas(64) float tile[kTileRoom<T>];
  const float largest = row.largest;
  const float inverse_sum = static_cast<float>(1.0 / row.sum);
  for (int64_t first = 0; first < count; first += kTile) {
    const int64_t length = std::min(kTile, count - first);
    T* out = x + first;
    const float* values = widened(out, length, tile);
    // Where T is float the results go straight back into the row.
    float* results = tile;
    if constexpr (std::is_same_v<T, float>) results = out;
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float z = (values[i] - largest) * scale;
      results[i] = f(math::exp(z) * inverse_sum, z - log_sum);
    }
    if constexpr (!std::is_same_v<T, float>) narrow(results, out, length);
  }
}

}  // namespace igf::softmax
