// A sum whose order is fixed: sixteen running sums side by side, then added in order. Torch-free.
//
// A compiler may not reorder a plain sum of floats and so does not vectorise it; here the order that vectors need is the
// order that is written, at every vector width. Inline it into an IGF_CLONES function.
#pragma once

#include <cstdint>

#include "cpu/clones.h"

namespace igf {

// term(i) for i in [0, count), added in the type Sum; the sixteen lanes are then added in double.
template <typename Sum, typename Term>
IGF_INLINE double lane_sum(int64_t count, const Term& term) {
  constexpr int kLanes = 16;
  alignas(64) Sum lanes[kLanes] = {};
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += term(i);
  double sum = 0;
  for (int l = 0; l < kLanes; ++l) sum += static_cast<double>(lanes[l]);
  return sum;
}

}  // namespace igf
