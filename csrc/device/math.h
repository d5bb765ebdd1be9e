// Elementary functions that a compiler can vectorise: exp, log and log1p of float, as branch-free inline code.
//
// Why: libm's expf and logf are calls, and a loop that makes a call per element is not vectorised. These are plain
// arithmetic and selects, so they take the vector width of whatever loop they are inlined into (SSE2, AVX2, AVX-512).
// GCC vectorises the selects only under -fno-trapping-math, and needs -fno-math-errno for sqrt in the same loop.
//
// exp(x) leaves it to the compiler whether a * b + c is rounded once or twice, so that its last bit may differ between
// machines. exp<Fused>(x) always rounds once: equal bits on every CPU, GPU and emulator (where a choice hangs on them),
// at the same speed where the processor has the instruction and far slower where it has not. The same for log, log1p.
//
// Numbers: bounds in units in the last place (ulp) of the result, against the exact value, with and without fused
// multiply-add, over every float of the stated range (python_tests/device/test_math.py sweeps them):
//   exp    <= 1.1 ulp where exp(x) is a normal float; results below 2^-126 become 0; above the largest float, infinity
//   log    <= 1   ulp for every positive float, subnormals included; log(0) = -inf, log(negative) = NaN
//   log1p  <= 1.5 ulp for x >= 0 (the range softplus and log-sigmoid need); x < 0 is only as good as log(1 + x)
// NaN gives NaN. Not covered: rounding modes other than to nearest, and -ffast-math (log1p relies on exact rounding).
//
// Source: range reduction after Cody and Waite 1980; the polynomials are minimax fits (weighted for relative error)
// on the reduced ranges, rounded to float.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define IGF_INLINE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define IGF_INLINE __forceinline
#else
#define IGF_INLINE inline __attribute__((always_inline))
#endif

#if defined(__CUDACC__)
#define IGF_FMAF fmaf
#elif defined(_MSC_VER)
#include <cmath>
#define IGF_FMAF std::fmaf
#else
#define IGF_FMAF __builtin_fmaf
#endif

namespace igf::math {

// ln 2 in two floats: the first has nine significant bits, so that its product with an exponent is exact.
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
inline constexpr float kInfinity = __builtin_huge_valf();

// How a * b + c is rounded: as the compiler's flags have it, or once.
struct AsCompiled {
  static IGF_INLINE float multiply_add(float a, float b, float c) { return a * b + c; }
};
struct Fused {
  static IGF_INLINE float multiply_add(float a, float b, float c) { return IGF_FMAF(a, b, c); }
};

template <typename Rounding = AsCompiled>
IGF_INLINE float exp(float x) {
  // exp(x) = 2^n exp(r) with n = round(x / ln 2), |r| <= ln(2) / 2.
  constexpr float kLog2E = 1.44269504f;
  constexpr float kSmallest = -87.3365402f;  // the least float whose exponential is a normal float
  constexpr float kLargest = 88.7228317f;    // the greatest float whose exponential is finite
  constexpr float kRound = 12582912.0f;      // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  float bounded = x < kSmallest ? kSmallest : x;
  bounded = bounded > kLargest ? kLargest : bounded;
  const float shifted = Rounding::multiply_add(bounded, kLog2E, kRound);
  const float n = shifted - kRound;
  const float r = Rounding::multiply_add(n, -kLn2Low, Rounding::multiply_add(n, -kLn2High, bounded));
  float p = 0x1.6a2434p-10f;
  p = Rounding::multiply_add(p, r, 0x1.1239e2p-7f);
  p = Rounding::multiply_add(p, r, 0x1.5558f2p-5f);
  p = Rounding::multiply_add(p, r, 0x1.555492p-3f);
  p = Rounding::multiply_add(p, r, 0x1.fffffcp-2f);
  p = Rounding::multiply_add(p, r * r, r);
  p = p + 1.0f;
  // times 2^n, added to the exponent field: p is in [0.7, 1.42) and the result is normal, so that nothing carries over.
  const std::uint32_t n_bits = __builtin_bit_cast(std::uint32_t, shifted) - __builtin_bit_cast(std::uint32_t, kRound);
  float y = __builtin_bit_cast(float, __builtin_bit_cast(std::uint32_t, p) + (n_bits << 23));
  y = x < kSmallest ? 0.0f : y;
  return x <= kLargest ? y : x + kInfinity;  // infinity for what is too large, NaN for NaN
}

template <typename Rounding = AsCompiled>
IGF_INLINE float log(float x) {
  // log(x) = e ln 2 + log(1 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
  constexpr float kLeastNormal = 0x1p-126f;
  constexpr std::uint32_t kSqrtHalf = 0x3f3504f3u;
  const bool subnormal = x < kLeastNormal;
  const float normal = subnormal ? x * 0x1p23f : x;
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, normal) - kSqrtHalf;
  const std::int32_t exponent = static_cast<std::int32_t>(bits) >> 23;
  const float f = __builtin_bit_cast(float, (bits & 0x007fffffu) + kSqrtHalf) - 1.0f;
  const float e = static_cast<float>(exponent) - (subnormal ? 23.0f : 0.0f);
  float q = -0x1.38b5a2p-4f;
  q = Rounding::multiply_add(q, f, 0x1.055b82p-3f);
  q = Rounding::multiply_add(q, f, -0x1.0d8546p-3f);
  q = Rounding::multiply_add(q, f, 0x1.22da1ap-3f);
  q = Rounding::multiply_add(q, f, -0x1.547244p-3f);
  q = Rounding::multiply_add(q, f, 0x1.99a008p-3f);
  q = Rounding::multiply_add(q, f, -0x1.000226p-2f);
  q = Rounding::multiply_add(q, f, 0x1.555554p-2f);
  const float square = f * f;
  float y = q * (f * square);
  y = Rounding::multiply_add(e, kLn2Low, y);
  y = Rounding::multiply_add(-0.5f, square, y);
  y = f + y;
  y = Rounding::multiply_add(e, kLn2High, y);
  y = x < kInfinity ? y : x;  // infinity and NaN return themselves
  y = x == 0.0f ? -kInfinity : y;
  return x < 0.0f ? __builtin_nanf("") : y;
}

template <typename Rounding = AsCompiled>
IGF_INLINE float log1p(float x) {
  // log(1 + x) = log(w) + (what w = fl(1 + x) rounded away) / w.
  const float w = 1.0f + x;
  const float lost = x - (w - 1.0f);
  const float y = log<Rounding>(w) + lost / w;
  return w < kInfinity ? y : w;
}

}  // namespace igf::math
