// Softmax over one row of logits by a block: the row's largest value and its sums in one pass over memory.
//
// Numbers: f32 whatever T is. With `scale` = 1 / (temperature * kNatsPerUnit<T>) the exponent of a logit z is
//   u = (z - top) scale,   top = the largest z so far (0 while that is -infinity)
// in nats for float (expf) and in units of ln 2 for 16-bit T (ex2, which is what the GPU computes; its 2 ulp are far
// below the rounding of such logits). A thread that has met nothing but -infinity keeps a sum of 0; NaN and +infinity
// make the sum NaN. Sums are added in a fixed order: equal inputs give equal bits.
#pragma once

#include "device/fast_math.cuh"
#include "device/math.h"
#include "device/reductions.cuh"
#include "device/vectors.cuh"

namespace igf::device {

template <typename T>
constexpr float kNatsPerUnit = sizeof(T) == 2 ? kLn2 : 1.0f;

// e^(u * kNatsPerUnit<T>)
template <typename T>
IGF_DEVICE float power(float u) {
  if constexpr (sizeof(T) == 2) {
    return fast_exp2(u);
  } else {
    return expf(u);
  }
}

// What a row, or a part of it, comes down to: the largest logit, the sum of power(u), the sum of power(u) * u.
struct SoftmaxRow {
  float top = -math::kInfinity;
  float sum = 0.0f;
  float weighted = 0.0f;
};

// What exponents are taken from.
IGF_DEVICE float base_of(float top) { return top == -math::kInfinity ? 0.0f : top; }

// The same sums as seen from a larger top.
template <typename T, bool kWeighted>
IGF_DEVICE void rebase(SoftmaxRow& row, float top, float scale) {
  const float moved = row.top == -math::kInfinity ? 0.0f : (row.top - base_of(top)) * scale;
  const float factor = power<T>(moved);
  if constexpr (kWeighted) row.weighted = fmaf(row.sum, moved, row.weighted) * factor;
  row.sum *= factor;
  row.top = top;
}

// Adds some logits.
template <typename T, bool kWeighted, int kCount>
IGF_DEVICE void absorb(SoftmaxRow& row, const float (&z)[kCount], float scale) {
  float top = row.top;
#pragma unroll
  for (int i = 0; i < kCount; ++i) top = fmaxf(top, z[i]);
  rebase<T, kWeighted>(row, top, scale);
  const float base = base_of(top);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float u = (z[i] - base) * scale;
    const float e = power<T>(u);
    row.sum += e;
    if constexpr (kWeighted) row.weighted = fmaf(e, u, row.weighted);
  }
}

// The row of all lanes of a warp, in every lane. All lanes must call it.
template <typename T, bool kWeighted>
IGF_DEVICE void warp_merge(SoftmaxRow& row, float scale IGF_SITE_PARAMETER) {
  rebase<T, kWeighted>(row, warp_max(row.top IGF_SITE), scale);
  row.sum = warp_sum(row.sum IGF_SITE);
  if constexpr (kWeighted) row.weighted = warp_sum(row.weighted IGF_SITE);
}

// Floats of shared memory that block_merge needs.
template <int kThreads>
constexpr int kMergeScratch = 3 * kThreads / kWarp;

// The row of all threads of a block, in every thread, by one barrier: what threads wrote to shared memory before is
// visible after. `scratch` must not be written again before another barrier.
template <typename T, int kThreads, bool kWeighted>
IGF_DEVICE void block_merge(SoftmaxRow& row, float scale, float* scratch IGF_SITE_PARAMETER) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kThreads % kWarp == 0 && kWarps <= kWarp);
  warp_merge<T, kWeighted>(row, scale IGF_SITE);
  const int lane = lane_index();
  if (lane == 0) {
    float* mine = scratch + 3 * (thread_x() / kWarp);
    mine[0] = row.top;
    mine[1] = row.sum;
    if constexpr (kWeighted) mine[2] = row.weighted;
  }
  block_barrier();  // every warp's row is in scratch
  row = SoftmaxRow();
  if (lane < kWarps) {
    row.top = scratch[3 * lane];
    row.sum = scratch[3 * lane + 1];
    if constexpr (kWeighted) row.weighted = scratch[3 * lane + 2];
  }
  warp_merge<T, kWeighted>(row, scale IGF_SITE);
}

// Vectors that a thread keeps under way when it walks over a row.
constexpr int kVectorsAtOnce = 4;

// This thread's share of a row of `width` logits: the vectors thread_x(), thread_x() + kThreads, ... of it. read(v) gives
// vector v, of which the row's last one may reach beyond `width`; seen(v, packed) is told of each, in the same order.
template <typename T, int kThreads, bool kWeighted, typename Read, typename Seen>
IGF_DEVICE SoftmaxRow scan_row(int64_t width, float scale, const Read& read, const Seen& seen) {
  constexpr int kLanes = kVectorLanes<T>;
  SoftmaxRow row;
  const int64_t full = width / kLanes;
  int64_t v = thread_x();  // [0, vectors of the row)
  for (; v + (kVectorsAtOnce - 1) * kThreads < full; v += kVectorsAtOnce * kThreads) {
    Packed<T> packed[kVectorsAtOnce];
    float z[kVectorsAtOnce * kLanes];
#pragma unroll
    for (int k = 0; k < kVectorsAtOnce; ++k) packed[k] = read(v + k * kThreads);
#pragma unroll
    for (int k = 0; k < kVectorsAtOnce; ++k) {
      seen(v + k * kThreads, packed[k]);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) z[k * kLanes + i] = to_float(packed[k].lanes[i]);
    }
    absorb<T, kWeighted>(row, z, scale);
  }
  for (; v < full; v += kThreads) {
    const Packed<T> packed = read(v);
    seen(v, packed);
    float z[kLanes];
    unpack<T>(z, packed);
    absorb<T, kWeighted>(row, z, scale);
  }
  if (v * kLanes < width) {  // the last vector, in part: one thread's
    const Packed<T> packed = read(v);
    seen(v, packed);
#pragma unroll
    for (int i = 0; i < kLanes - 1; ++i) {
      const float z[1] = {to_float(packed.lanes[i])};
      if (v * kLanes + i < width) absorb<T, kWeighted>(row, z, scale);
    }
  }
  return row;
}

}  // namespace igf::device
