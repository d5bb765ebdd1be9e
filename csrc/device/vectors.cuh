// 16-byte loads and stores that hand over floats.
#pragma once

#include "device/dtype.cuh"

namespace igf::device {

constexpr int kVectorBytes = 16;

// Elements of T in one 16-byte access: 4 floats, 8 bfloat16 or half.
template <typename T>
constexpr int kVectorLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes) Vector {
  T lanes[kLanes];
};

// values[i] = base[index * kVectorLanes<T> + i]; base must be 16-byte aligned.
template <typename T>
IGF_DEVICE void load_vector(float (&values)[kVectorLanes<T>], const T* base, int64_t index) {
  using Packed = Vector<T, kVectorLanes<T>>;
  const Packed packed = reinterpret_cast<const Packed*>(base)[index];
#pragma unroll
  for (int i = 0; i < kVectorLanes<T>; ++i) values[i] = to_float(packed.lanes[i]);
}

// The same count of elements from floats, in accesses of 16 bytes.
template <int kLanes>
IGF_DEVICE void load_floats(float (&values)[kLanes], const float* base, int64_t index) {
  static_assert(kLanes % 4 == 0);
  const float4* quads = reinterpret_cast<const float4*>(base) + index * (kLanes / 4);
#pragma unroll
  for (int q = 0; q < kLanes / 4; ++q) {
    const float4 quad = quads[q];
    values[4 * q + 0] = quad.x;
    values[4 * q + 1] = quad.y;
    values[4 * q + 2] = quad.z;
    values[4 * q + 3] = quad.w;
  }
}

template <int kLanes>
IGF_DEVICE void store_floats(float* base, int64_t index, const float (&values)[kLanes]) {
  static_assert(kLanes % 4 == 0);
  float4* quads = reinterpret_cast<float4*>(base) + index * (kLanes / 4);
#pragma unroll
  for (int q = 0; q < kLanes / 4; ++q) {
    quads[q] = make_float4(values[4 * q], values[4 * q + 1], values[4 * q + 2], values[4 * q + 3]);
  }
}

template <typename T>
IGF_DEVICE void store_vector(T* base, int64_t index, const float (&values)[kVectorLanes<T>]) {
  using Packed = Vector<T, kVectorLanes<T>>;
  Packed packed;
#pragma unroll
  for (int i = 0; i < kVectorLanes<T>; ++i) packed.lanes[i] = from_float<T>(values[i]);
  reinterpret_cast<Packed*>(base)[index] = packed;
}

}  // namespace igf::device
