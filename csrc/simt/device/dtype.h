// The emulator's half of device/dtype.cuh: the storage types of the CPU loops, whose conversions round the same way.
#pragma once

#include "cpu/scalar.h"

namespace igf::device {

using igf::bfloat16;
using igf::half;

IGF_DEVICE float to_float(float value) { return value; }
IGF_DEVICE float to_float(bfloat16 value) { return static_cast<float>(value); }
IGF_DEVICE float to_float(half value) { return static_cast<float>(value); }

template <typename T>
IGF_DEVICE T from_float(float value) {
  return T(value);
}

}  // namespace igf::device
