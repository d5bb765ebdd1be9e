// The emulator's half of device/ptx.cuh.
#pragma once

#include "simt/device/words.h"

namespace igf::device::ptx {

IGF_DEVICE float ex2_approx(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 0x1p-126f ? 0.0f : y;
}

IGF_DEVICE float tanh_approx(float x) { return std::tanh(x); }

}  // namespace igf::device::ptx
