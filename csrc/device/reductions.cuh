// Sums over a warp and over a block, in a fixed order: equal inputs give equal bits.
#pragma once

#include "device/words.cuh"

namespace igf::device {

// The sum over the 32 lanes, in every lane. All lanes must call it.
IGF_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

// Sums of kCount values over the kThreads threads of a row, in every thread.
//
// kThreads = 32: the row is one warp, blocks may hold several rows. kThreads > 32: the row is the whole block, every
// thread of it must call this, and `scratch` holds kCount * kThreads / 32 floats of shared memory.
template <int kThreads, int kCount>
IGF_DEVICE void row_sum(float (&values)[kCount], float* scratch) {
  static_assert(kThreads % kWarp == 0 && kThreads <= 1024);
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = warp_sum(values[i]);
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    const int warp = thread_x() / kWarp;  // [0, kWarps)
    if (thread_x() % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) scratch[i * kWarps + warp] = values[i];
    }
    block_barrier();  // every warp's sum is in scratch
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float total = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) total += scratch[i * kWarps + w];
      values[i] = total;
    }
    block_barrier();  // scratch has been read and may be written again
  }
}

}  // namespace igf::device
