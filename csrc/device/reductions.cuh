// Sums and maxima over a warp and over a block, in a fixed order: equal inputs give equal bits.
#pragma once

#include "device/words.cuh"

namespace igf::device {

struct Add {
  template <typename T>
  IGF_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};

// The larger one; a number where the other is NaN.
struct Max {
  IGF_DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
};

// The reduction over the 32 lanes, in every lane. All lanes must call it.
template <typename Reduce, typename T>
IGF_DEVICE T warp_reduce(Reduce reduce, T value IGF_SITE_PARAMETER) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = reduce(value, shuffle_xor(value, mask, kAllLanes IGF_SITE));
  return value;
}

template <typename T>
IGF_DEVICE T warp_sum(T value IGF_SITE_PARAMETER) {
  return warp_reduce(Add(), value IGF_SITE);
}

IGF_DEVICE float warp_max(float value IGF_SITE_PARAMETER) { return warp_reduce(Max(), value IGF_SITE); }

// Reductions of kCount values over the kThreads threads of a row, in every thread.
//
// kThreads = 32: the row is one warp, blocks may hold several rows. kThreads > 32: the row is the whole block, every
// thread of it must call this, and `scratch` holds kCount * kThreads / 32 values of shared memory.
template <int kThreads, typename Reduce, typename T, int kCount>
IGF_DEVICE void row_reduce(Reduce reduce, T (&values)[kCount], T* scratch IGF_SITE_PARAMETER) {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024);
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = warp_reduce(reduce, values[i] IGF_SITE);
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    const int warp = thread_x() / kWarp;  // [0, kWarps)
    if (thread_x() % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) scratch[i * kWarps + warp] = values[i];
    }
    block_barrier();  // every warp's result is in scratch
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      T total = scratch[i * kWarps];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) total = reduce(total, scratch[i * kWarps + w]);
      values[i] = total;
    }
    block_barrier();  // scratch has been read and may be written again
  }
}

template <int kThreads, typename T, int kCount>
IGF_DEVICE void row_sum(T (&values)[kCount], T* scratch IGF_SITE_PARAMETER) {
  row_reduce<kThreads>(Add(), values, scratch IGF_SITE);
}

}  // namespace igf::device
