// The emulator's half of device/dtype.cuh: the storage types of the CPU loops, whose conversions round the same way.
// As on a GPU, a NaN that is converted becomes the one NaN with all bits set but the sign.
#pragma once

#include "cpu/scalar.h"

namespace igf::device {

using igf::bfloat16;
using igf::half;

IGF_DEVICE float to_float(float value) { return value; }
IGF_DEVICE float to_float(bfloat16 value) { return static_cast<float>(value); }
IGF_DEVICE float to_float(half value) {
  const float wide = static_cast<float>(value);
  return wide == wide ? wide : __builtin_bit_cast(float, 0x7fffffffu);
}

template <typename T>
IGF_DEVICE T from_float(float value) {
  return value == value ? T(value) : __builtin_bit_cast(T, uint16_t{0x7fff});
}
template <>
IGF_DEVICE float from_float<float>(float value) {
  return value;
}

}  // namespace igf::device
