// Sixteen f32 side by side, and sums of their lanes in one fixed order. Torch-free, inline.
//
// A register on CPUs that have such wide ones, several on others: what is computed is the same. Results go through
// references: returned by value, vectors this wide would change the calling convention.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "cpu/clones.h"
#include "cpu/scalar.h"

namespace igf {

inline constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef uint32_t LaneBits __attribute__((vector_size(kLanes * sizeof(uint32_t))));

IGF_INLINE void load(const float* from, Lanes& lanes) { std::memcpy(&lanes, from, sizeof lanes); }

// Lane by lane, which gcc makes one widening load of; of a conversion of whole vectors it makes two halves.
IGF_INLINE void load(const bfloat16* from, Lanes& lanes) {
  for (int l = 0; l < kLanes; ++l) lanes[l] = static_cast<float>(from[l]);
}

// As half's own conversion, lane by lane.
IGF_INLINE void load(const half* from, Lanes& lanes) {
  LaneBits bits;
  for (int l = 0; l < kLanes; ++l) bits[l] = from[l].bits;
  const LaneBits sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu, shifted = magnitude << 13;
  std::memcpy(&lanes, &shifted, sizeof lanes);
  lanes *= 0x1p112f;
  LaneBits finite;
  std::memcpy(&finite, &lanes, sizeof lanes);
  const LaneBits value = sign | (magnitude >= 0x7c00u ? 0x7f800000u | shifted : finite);
  std::memcpy(&lanes, &value, sizeof lanes);
}

// The first `count` of kLanes elements, zeros behind them.
template <typename T>
IGF_INLINE void load_some(const T* from, int64_t count, Lanes& lanes) {
  T whole[kLanes] = {};
  for (int64_t l = 0; l < count; ++l) whole[l] = from[l];
  load(whole, lanes);
}

// Lane l of a becomes the sum of two lanes of a where bit BIT of l is 0, of two of b where it is 1.
template <int BIT, int... LANE>
IGF_INLINE void merge(Lanes& a, const Lanes& b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
  a = __builtin_shufflevector(a, b, (LANE & BIT ? LANE + kLanes : LANE)...) +
      __builtin_shufflevector(a, b, (LANE & BIT ? LANE - BIT + kLanes : LANE + BIT)...);
#else
  typedef int32_t Index __attribute__((vector_size(kLanes * sizeof(int32_t))));
  // The first picks lanes where they stand, which costs less than moving them.
  const Index own = {(LANE & BIT ? LANE + kLanes : LANE)...};
  const Index other = {(LANE & BIT ? LANE - BIT + kLanes : LANE + BIT)...};
  a = __builtin_shuffle(a, b, own) + __builtin_shuffle(a, b, other);
#endif
}

// Lane i of sums[0] becomes the sum of all lanes of sums[i], for i < COUNT <= kLanes; other lanes mean nothing. Summing
// one vector at a time would cost several times as much. Whatever COUNT and i, lanes are added in one order:
// neighbours, then pairs of neighbours, and so on.
template <int COUNT>
IGF_INLINE void sum_lanes(Lanes (&sums)[COUNT]) {
  static_assert(COUNT >= 1 && COUNT <= kLanes);
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>();
#pragma GCC unroll 16
  for (int i = 0; i < COUNT; i += 2) merge<1>(sums[i], sums[i + 1 < COUNT ? i + 1 : i], lanes);
#pragma GCC unroll 16
  for (int i = 0; i < COUNT; i += 4) merge<2>(sums[i], sums[i + 2 < COUNT ? i + 2 : i], lanes);
#pragma GCC unroll 16
  for (int i = 0; i < COUNT; i += 8) merge<4>(sums[i], sums[i + 4 < COUNT ? i + 4 : i], lanes);
  merge<8>(sums[0], sums[8 < COUNT ? 8 : 0], lanes);
}

}  // namespace igf
