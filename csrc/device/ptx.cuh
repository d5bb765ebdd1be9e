// PTX instructions that C++ has no word for: each has one wrapper, here, and one twin in the emulator.
//
// Source: PTX ISA 9.0, the section named at each wrapper.
#pragma once

#include "device/words.cuh"

#if defined(IGF_SIMT)

#include "simt/device/ptx.h"

#else

namespace igf::device::ptx {

// ex2.approx.ftz.f32 (9.7.3.21): 2^x within 2^-22.5 relative; subnormal results become 0.
IGF_DEVICE float ex2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh.approx.f32 (9.7.3.22): relative error 2^-11.
IGF_DEVICE float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace igf::device::ptx

#endif  // IGF_SIMT
