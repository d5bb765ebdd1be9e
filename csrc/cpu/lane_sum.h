// A sum whose order is fixed: sixty-four running sums side by side, folded in order at the end. Torch-free.
//
// A compiler may not reorder a plain sum of floats and so does not vectorise it; here the order that vectors need is the
// order that is written, at every vector width. Sixty-four, because the sums live in memory while the loop runs and one
// vector of them would wait for itself. Inline it into an IGF_CLONES function.
#pragma once

#include <cstdint>

#include "cpu/clones.h"

namespace igf {

// term(i) for i in [0, count), added in the type Sum until sixteen sums are left, which are added in double.
template <typename Sum, typename Term>
IGF_INLINE double lane_sum(int64_t count, const Term& term) {
  constexpr int kLanes = 64, kLast = 16;
  alignas(64) Sum lanes[kLanes] = {};
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += term(i);
  for (int half = kLanes / 2; half >= kLast; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  double sum = 0;
  for (int l = 0; l < kLast; ++l) sum += static_cast<double>(lanes[l]);
  return sum;
}

}  // namespace igf
