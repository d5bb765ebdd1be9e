// The emulator's half of device/ptx.cuh.
#pragma once

#include "simt/device/words.h"

namespace igf::device::ptx {

IGF_DEVICE float ex2_approx(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 0x1p-126f ? 0.0f : y;
}

IGF_DEVICE float tanh_approx(float x) { return std::tanh(x); }

IGF_DEVICE void named_barrier_sync(int barrier, int threads IGF_SITE_PARAMETER) {
  simt::named_barrier_sync(barrier, threads IGF_SITE);
}
IGF_DEVICE void named_barrier_arrive(int barrier, int threads IGF_SITE_PARAMETER) {
  simt::named_barrier_arrive(barrier, threads IGF_SITE);
}

}  // namespace igf::device::ptx
