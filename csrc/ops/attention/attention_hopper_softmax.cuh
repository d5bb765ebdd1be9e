// The softmax of a warpgroup's 64 queries while tiles of keys pass, in the registers that wgmma left the scores in.
//
// Thread t, with warp w = t / 32 of its warpgroup, g = t % 32 / 4 and c = t % 4, holds two rows, 16 w + g + 8 h with h
// in [0, 2), of scores[4 j + 2 h + i] = key 8 j + 2 c + i. A row is held by the four threads of one g: its largest score
// is theirs together after every tile, its sum each one's own until the end.
#pragma once

#include <cmath>

#include "device/fast_math.cuh"
#include "device/ptx.cuh"
#include "ops/attention/attention_sequences.cuh"

namespace igf::attention::hopper_forward {

// The largest score so far, before scaling, and the sum of exp(scale * (score - largest)).
struct SoftmaxRows {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};
};

// Scores of keys that their query does not see become -infinity. row: the thread's first query of its sequence;
// first_key: of the tile, plus 2 c. With a constant beside each comparison it is one instruction.
template <int kKeys>
IGF_DEVICE void mask_scores(float (&scores)[kKeys / 2], const Sight& sight, int row, int first_key) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int end = sight.end_key(row + 8 * h + 1) - first_key;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      if (8 * j >= end) scores[4 * j + 2 * h] = -INFINITY;
      if (8 * j + 1 >= end) scores[4 * j + 2 * h + 1] = -INFINITY;
    }
  }
  if (sight.window == kWidestWindow) return;  // it hides nothing
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int first = sight.first_key(row + 8 * h) - first_key;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      if (8 * j < first) scores[4 * j + 2 * h] = -INFINITY;
      if (8 * j + 1 < first) scores[4 * j + 2 * h + 1] = -INFINITY;
    }
  }
}

// Scores become exp(scale * (score - largest)), the sum takes them up; factor: what all that was summed before, out too,
// must be multiplied by. A row that has seen nothing stays at sum 0 (its exponents are -infinity, not NaN).
template <int kKeys>
IGF_DEVICE void fold_scores(float (&scores)[kKeys / 2], SoftmaxRows& rows, float (&factor)[2],
                            float scale_log2 IGF_SITE_PARAMETER) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float largest[2] = {rows.largest[h], -INFINITY};  // two chains: half the latency
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      largest[0] = fmaxf(largest[0], scores[4 * j + 2 * h]);
      largest[1] = fmaxf(largest[1], scores[4 * j + 2 * h + 1]);
    }
    float top = fmaxf(largest[0], largest[1]);
    top = fmaxf(top, device::shuffle_xor(top, 1, device::kAllLanes IGF_SITE));
    top = fmaxf(top, device::shuffle_xor(top, 2, device::kAllLanes IGF_SITE));
    const float base = top == -INFINITY ? 0.0f : top * scale_log2;
    factor[h] = device::fast_exp2(fmaf(rows.largest[h], scale_log2, -base));
    rows.largest[h] = top;
    float sum[2] = {rows.sum[h] * factor[h], 0.0f};
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[4 * j + 2 * h + i];
        score = device::fast_exp2(fmaf(score, scale_log2, -base));
        sum[i] += score;
      }
    }
    rows.sum[h] = sum[0] + sum[1];
  }
}

// The scores, rounded to T, as A of the product with v: steps of 16 keys.
template <typename T, int kKeys>
IGF_DEVICE void pack_scores(uint32_t (&packed)[kKeys / 16][4], const float (&scores)[kKeys / 2]) {
#pragma unroll
  for (int s = 0; s < kKeys / 16; ++s) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {  // r % 2: the row; r / 2: the first or the second 8 keys
      packed[s][r] = device::ptx::pack_pair<T>(scores[8 * s + 2 * r], scores[8 * s + 2 * r + 1]);
    }
  }
}

// Ends a row: factor becomes what out must be multiplied by, and the row's log-sum-exp comes back.
IGF_DEVICE float end_row(const SoftmaxRows& rows, int h, float scale, float& factor IGF_SITE_PARAMETER) {
  float sum = rows.sum[h];
  sum += device::shuffle_xor(sum, 1, device::kAllLanes IGF_SITE);
  sum += device::shuffle_xor(sum, 2, device::kAllLanes IGF_SITE);
  factor = sum == 0.0f ? 0.0f : 1.0f / sum;
  return sum == 0.0f ? -INFINITY : fmaf(rows.largest[h], scale, device::fast_log(sum));
}

}  // namespace igf::attention::hopper_forward
