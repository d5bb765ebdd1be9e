// 16-byte loads and stores that hand over floats.
#pragma once

#include "device/dtype.cuh"
#include "device/memory.cuh"

namespace igf::device {

constexpr int kVectorBytes = 16;

// Elements of T in one 16-byte access: 4 floats, 8 bfloat16 or half.
template <typename T>
constexpr int kVectorLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
using Packed = Vector<T, kVectorLanes<T>>;

template <typename T>
IGF_DEVICE void unpack(float (&values)[kVectorLanes<T>], const Packed<T>& packed) {
#pragma unroll
  for (int i = 0; i < kVectorLanes<T>; ++i) values[i] = to_float(packed.lanes[i]);
}

template <typename T>
IGF_DEVICE Packed<T> pack(const float (&values)[kVectorLanes<T>]) {
  Packed<T> packed;
#pragma unroll
  for (int i = 0; i < kVectorLanes<T>; ++i) packed.lanes[i] = from_float<T>(values[i]);
  return packed;
}

// values[i] = base[index * kVectorLanes<T> + i]; base must be 16-byte aligned.
template <typename T>
IGF_DEVICE void load_vector(float (&values)[kVectorLanes<T>], const T* base, int64_t index IGF_SITE_PARAMETER) {
  unpack<T>(values, load(reinterpret_cast<const Packed<T>*>(base) + index IGF_SITE));
}

template <typename T>
IGF_DEVICE void store_vector(T* base, int64_t index, const float (&values)[kVectorLanes<T>] IGF_SITE_PARAMETER) {
  store(reinterpret_cast<Packed<T>*>(base) + index, pack<T>(values) IGF_SITE);
}

// The same for memory that is touched once in a launch; see load_once and store_once.
template <typename T>
IGF_DEVICE void load_vector_once(float (&values)[kVectorLanes<T>], const T* base, int64_t index IGF_SITE_PARAMETER) {
  unpack<T>(values, load_once(reinterpret_cast<const Packed<T>*>(base) + index IGF_SITE));
}

template <typename T>
IGF_DEVICE void store_vector_once(T* base, int64_t index, const float (&values)[kVectorLanes<T>] IGF_SITE_PARAMETER) {
  store_once(reinterpret_cast<Packed<T>*>(base) + index, pack<T>(values) IGF_SITE);
}

// kLanes floats from and to base + index * kLanes, in accesses of 16 bytes.
template <int kLanes>
IGF_DEVICE void load_floats(float (&values)[kLanes], const float* base, int64_t index IGF_SITE_PARAMETER) {
  static_assert(kLanes % 4 == 0);
  const Packed<float>* quads = reinterpret_cast<const Packed<float>*>(base) + index * (kLanes / 4);
#pragma unroll
  for (int q = 0; q < kLanes / 4; ++q) {
    const Packed<float> quad = load(quads + q IGF_SITE);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[4 * q + i] = quad.lanes[i];
  }
}

template <int kLanes>
IGF_DEVICE void store_floats(float* base, int64_t index, const float (&values)[kLanes] IGF_SITE_PARAMETER) {
  static_assert(kLanes % 4 == 0);
  Packed<float>* quads = reinterpret_cast<Packed<float>*>(base) + index * (kLanes / 4);
#pragma unroll
  for (int q = 0; q < kLanes / 4; ++q) {
    store(quads + q, Packed<float>{{values[4 * q], values[4 * q + 1], values[4 * q + 2], values[4 * q + 3]}} IGF_SITE);
  }
}

}  // namespace igf::device
