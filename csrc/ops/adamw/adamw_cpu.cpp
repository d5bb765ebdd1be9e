// adamw: the update of blocks of elements, all state in one pass. Bound by memory from some megabytes of state on.
#include "ops/adamw/adamw.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace igf {
namespace {

IGF_INLINE void update_f32(float* p, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, float keep,
                           const AdamWStep& by) {
  const AdamWStep s = by;  // a local copy: a store through p cannot change it
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * s.grad_factor;
    const float m = s.beta1 * exp_avg[i] + s.one_minus_beta1 * g;
    const float v = s.beta2 * exp_avg_sq[i] + s.one_minus_beta2 * (g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    p[i] = keep * p[i] - s.step_size * m / (std::sqrt(v) * s.denominator_factor + s.eps);
  }
}

IGF_INLINE void average_f32(const float* p, float* ema, int64_t count, float one_minus_decay) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) ema[i] += one_minus_decay * (p[i] - ema[i]);
}

// Tiles even for f32: the average then finds the new weights in the first-level cache.
template <typename T>
IGF_INLINE void update_body(const AdamWBlock& block, const AdamWStep& step) {
  alignas(64) float tile[kTileRoom<T>];
  for (int64_t first = 0; first < block.size; first += kTile) {
    const int64_t count = std::min(kTile, block.size - first);
    T* param = static_cast<T*>(block.param) + first;
    const float* grad = widened(static_cast<const T*>(block.grad) + first, count, tile);
    float* weights;
    if constexpr (std::is_same_v<T, float>) {
      weights = param;
    } else {
      weights = block.master + first;
    }
    update_f32(weights, grad, block.exp_avg + first, block.exp_avg_sq + first, count, block.keep, step);
    if constexpr (!std::is_same_v<T, float>) narrow(weights, param, count);
    if (block.ema != nullptr) average_f32(weights, block.ema + first, count, step.one_minus_ema_decay);
  }
}

IGF_CLONES void update_block(float, const AdamWBlock& block, const AdamWStep& step) {
  update_body<float>(block, step);
}

IGF_CLONES void update_block(bfloat16, const AdamWBlock& block, const AdamWStep& step) {
  update_body<bfloat16>(block, step);
}

IGF_CLONES void update_block(half, const AdamWBlock& block, const AdamWStep& step) { update_body<half>(block, step); }

}  // namespace

template <typename T>
void adamw_update(const AdamWBlock* blocks, int64_t count, const AdamWStep& step) {
  parallel_for(0, count, 1, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) update_block(T{}, blocks[i], step);
  });
}

template void adamw_update<float>(const AdamWBlock*, int64_t, const AdamWStep&);
template void adamw_update<bfloat16>(const AdamWBlock*, int64_t, const AdamWStep&);
template void adamw_update<half>(const AdamWBlock*, int64_t, const AdamWStep&);

}  // namespace igf
