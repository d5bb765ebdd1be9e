// The emulator's half of device/fast_math.cuh: nearer to the true values than a GPU's.
#pragma once

#include "simt/device/words.h"

namespace igf::device {

IGF_DEVICE float fast_exp2(float x) { return ptx::ex2_approx(x); }
IGF_DEVICE float fast_exp(float x) { return std::exp(x); }
IGF_DEVICE float fast_log(float x) { return std::log(x); }
IGF_DEVICE float fast_tanh(float x) { return ptx::tanh_approx(x); }
IGF_DEVICE float fast_rsqrt(float x) { return 1.0f / std::sqrt(x); }
IGF_DEVICE float fast_divide(float a, float b) { return a / b; }

}  // namespace igf::device
