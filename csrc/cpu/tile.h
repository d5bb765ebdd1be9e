// Short runs of 16-bit elements as f32 in the first-level cache, and back. Torch-free, inline.
//
// Why: gcc vectorises a loop that mixes 16-bit and 32-bit elements at half width or worse; one loop that widens, one that
// works, one that narrows are faster together.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/clones.h"
#include "cpu/scalar.h"

namespace igf {

inline constexpr int64_t kTile = 1024;  // 4 KiB of f32

// Room for the widened elements of T; f32 needs none.
template <typename T>
inline constexpr int64_t kTileRoom = std::is_same_v<T, float> ? 1 : kTile;

// count <= kTile elements as f32: a pointer into x itself when T is float, else into `tile`, which is filled.
template <typename T>
IGF_INLINE const float* widened(const T* x, int64_t count, float* tile) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) tile[i] = static_cast<float>(x[i]);
    return tile;
  }
}

template <typename T>
IGF_INLINE void narrow(const float* from, T* to, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) to[i] = T(from[i]);
}

}  // namespace igf
