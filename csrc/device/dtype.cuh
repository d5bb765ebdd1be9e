// bfloat16 and half as storage types of kernels: 16 bits in memory, float in registers.
#pragma once

#include "device/words.cuh"

#if defined(IGF_SIMT)

#include "simt/device/dtype.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace igf::device {

using bfloat16 = __nv_bfloat16;
using half = __half;

IGF_DEVICE float to_float(float value) { return value; }
IGF_DEVICE float to_float(bfloat16 value) { return __bfloat162float(value); }
IGF_DEVICE float to_float(half value) { return __half2float(value); }

// Rounds to nearest, ties to even.
template <typename T>
IGF_DEVICE T from_float(float value);
template <>
IGF_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
IGF_DEVICE bfloat16 from_float<bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
IGF_DEVICE half from_float<half>(float value) {
  return __float2half_rn(value);
}

}  // namespace igf::device

#endif  // IGF_SIMT

namespace igf::device {

// The value as it will be read back after it was stored as T.
template <typename T>
IGF_DEVICE float rounded_to(float value) {
  return to_float(from_float<T>(value));
}

}  // namespace igf::device
