// Per-column numbers (a weight, a bias, a sum over rows) in shared memory as f32, for kernels that hold kLanes
// neighbouring columns in a thread.
//
// Global memory is fastest when neighbouring lanes move neighbouring quads (four columns); a thread of such a kernel
// holds kLanes / 4 quads in a row instead. Staging in shared memory lets each side have its order. The first quads of
// all vectors stand in one plane, the second ones in another, half the banks away: so neither order, vector by vector
// or quad by quad, meets a bank twice.
// Limits: the number of columns is a multiple of kLanes; kLanes = 4 or 8.
#pragma once

#include "device/context.h"
#include "device/math.h"
#include "device/vectors.cuh"

namespace igf::device {

// Floats from one plane to the next, and of all planes, for a number of columns.
template <int kLanes>
IGF_INLINE constexpr int64_t staged_plane(int64_t columns) {
  static_assert(kLanes == 4 || kLanes == 8);
  return (columns * 4 / kLanes + 31) / 32 * 32 + (kLanes == 8 ? 16 : 0);
}
template <int kLanes>
IGF_INLINE constexpr int64_t staged_floats(int64_t columns) {
  return staged_plane<kLanes>(columns) * (kLanes / 4);
}

template <int kLanes>
struct StagedColumns {
  float* base;  // staged_floats<kLanes>(columns) of shared memory, on 16 bytes
  int plane;    // staged_plane<kLanes>(columns)

  // Quad q of a vector, and the quad of the columns from 4 * quad on.
  IGF_DEVICE Packed<float>* place(int vector, int q) const {
    return reinterpret_cast<Packed<float>*>(base + q * plane) + vector;
  }
  IGF_DEVICE Packed<float>* place(int quad) const { return place(quad / (kLanes / 4), quad % (kLanes / 4)); }

  // The columns from vector * kLanes on.
  IGF_DEVICE void get(float (&values)[kLanes], int vector IGF_SITE_PARAMETER) const {
#pragma unroll
    for (int q = 0; q < kLanes / 4; ++q) {
      const Packed<float> quad = load(place(vector, q) IGF_SITE);
#pragma unroll
      for (int i = 0; i < 4; ++i) values[4 * q + i] = quad.lanes[i];
    }
  }
  IGF_DEVICE void put(int vector, const float (&values)[kLanes] IGF_SITE_PARAMETER) const {
#pragma unroll
    for (int q = 0; q < kLanes / 4; ++q) {
      store(place(vector, q),
            Packed<float>{{values[4 * q], values[4 * q + 1], values[4 * q + 2], values[4 * q + 3]}} IGF_SITE);
    }
  }
};

// source[4 * quad .. 4 * quad + 4) as floats. source: T or, when `element` says so, f32; aligned to 16 bytes.
template <typename T>
IGF_DEVICE Packed<float> column_quad(const void* source, Element element, int quad IGF_SITE_PARAMETER) {
  if (element == Element::kFloat) return load(static_cast<const Packed<float>*>(source) + quad IGF_SITE);
  const Vector<T, 4> packed = load(static_cast<const Vector<T, 4>*>(source) + quad IGF_SITE);
  Packed<float> values;
#pragma unroll
  for (int i = 0; i < 4; ++i) values.lanes[i] = to_float(packed.lanes[i]);
  return values;
}

}  // namespace igf::device
