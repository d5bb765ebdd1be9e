// Elements as they wait in registers between their load and their use.
//
// A vector of 16-bit elements that lives across a branch or a loop takes a register for each element, because compilers
// split it; kept as four words it takes four.
#pragma once

#include <type_traits>

#include "device/vectors.cuh"

namespace igf::device {

// kLanes neighbouring elements of T: a whole vector of 16 bytes, or a single element.
template <typename T, int kLanes>
using Held = std::conditional_t<kLanes == 1, Vector<T, 1>, Vector<uint32_t, 4>>;

template <typename T, int kLanes>
IGF_DEVICE void unpack_held(float (&values)[kLanes], const Held<T, kLanes>& held) {
  static_assert(kLanes == 1 || kLanes == kVectorLanes<T>);
  const auto elements = __builtin_bit_cast(Vector<T, kLanes>, held);
#pragma unroll
  for (int i = 0; i < kLanes; ++i) values[i] = to_float(elements.lanes[i]);
}

// place[0 .. kLanes) = values, rounded to T, in one access.
template <typename T, int kLanes>
IGF_DEVICE void store_lanes(T* place, const float (&values)[kLanes] IGF_SITE_PARAMETER) {
  Vector<T, kLanes> elements;
#pragma unroll
  for (int i = 0; i < kLanes; ++i) elements.lanes[i] = from_float<T>(values[i]);
  store(reinterpret_cast<Vector<T, kLanes>*>(place), elements IGF_SITE);
}

}  // namespace igf::device
