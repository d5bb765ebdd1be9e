// Elementary functions that cost one or two instructions on a GPU, at a few units in the last place; float in and out.
//
// The emulator computes them from the C library, so its results are nearer to the true value than a GPU's. Where the
// last digits decide (a draw that must be the same on every machine) use device/math.h, which is plain arithmetic.
// Bounds: CUDA C++ Programming Guide, "Mathematical functions", intrinsic functions.
#pragma once

#include "device/ptx.cuh"

namespace igf::device {

// e^x = fast_exp2(kLog2E * x): a softmax in powers of two, whose scale takes the factor in; kLn2 leads back.
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2 = 0.693147181f;

}  // namespace igf::device

#if defined(IGF_SIMT)

#include "simt/device/fast_math.h"

#else

namespace igf::device {

// 2^x, 2 ulp; e^x, 2 + |1.173 x| ulp.
IGF_DEVICE float fast_exp2(float x) { return ptx::ex2_approx(x); }
IGF_DEVICE float fast_exp(float x) { return __expf(x); }
// log x: absolute error 2^-21.41 for x in [0.5, 2], 3 ulp elsewhere.
IGF_DEVICE float fast_log(float x) { return __logf(x); }
// tanh x, relative error 2^-11: for results that are rounded to 16 bits.
IGF_DEVICE float fast_tanh(float x) { return ptx::tanh_approx(x); }
// 1 / sqrt(x), 2 ulp; a / b, 2 ulp for b in [2^-126, 2^126].
IGF_DEVICE float fast_rsqrt(float x) { return rsqrtf(x); }
IGF_DEVICE float fast_divide(float a, float b) { return __fdividef(a, b); }

}  // namespace igf::device

#endif  // IGF_SIMT
