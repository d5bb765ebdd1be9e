// Sums bfloat16 matrices in f32. Torch-free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"

namespace igf {

IGF_CLONES static void accumulate_range(bfloat16* part, float* sum, int64_t count, bool is_first, bool is_last) {
  for (int64_t i = 0; i < count; ++i) {
    const float before = is_first ? 0.0f : sum[i];
    sum[i] = before + static_cast<float>(part[i]);
  }
  if (!is_last) return;
  for (int64_t i = 0; i < count; ++i) part[i] = bfloat16(sum[i]);
}

// sum[i] += part[i]. The first part overwrites: what `sum` held before is not used. After the last part, part[i] = sum[i].
inline void accumulate(bfloat16* part, float* sum, int64_t count, bool is_first, bool is_last) {
  constexpr int64_t kBlock = 1 << 14;
  parallel_for(0, (count + kBlock - 1) / kBlock, 1, [=](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t start = block * kBlock;
      accumulate_range(part + start, sum + start, std::min(kBlock, count - start), is_first, is_last);
    }
  });
}

}  // namespace igf
