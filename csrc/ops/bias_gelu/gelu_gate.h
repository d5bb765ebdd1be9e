// The Gaussian error linear unit and its slope, elementwise in f32: for CPU loops and for kernels.
//
// Everything is computed from the lower gate, gate(-|v|) <= 1/2: near 1 the gate would lose in its last bit what
// 1 - lower keeps. The magnitude of v is bounded first, so that infinity times zero does not occur.
//
// kPrecision is Accurate (a few units in the last place of f32, branch-free plain arithmetic that vectorises) or a
// struct with the same two functions.
#pragma once

#include "device/math.h"
#include "ops/bias_gelu/bias_gelu.h"

namespace igf {

struct Accurate {
  static IGF_INLINE float exp(float x) { return math::exp(x); }
  static IGF_INLINE float inverse(float x) { return 1.0f / x; }
};

namespace gelu_gate {

constexpr float kSqrt2OverPi = 0.797884561f;
constexpr float kCubic = 0.044715f;
constexpr float kSqrtHalf = 0.707106781f;
constexpr float kInvSqrt2Pi = 0.398942280f;
// Beyond this |v| the gate of either form is 0 or 1 to the last bit.
constexpr float kFlat = 16.0f;

struct Gate {
  float lower;   // gate(-|v|); gelu(v) = v gate(v), and gate(-v) = 1 - gate(v)
  float change;  // gate'(v)
};

// gate = sigmoid(2 u), u of the tanh form; magnitude = min(|v|, kFlat).
template <typename Precision>
IGF_INLINE Gate tanh_form(float magnitude) {
  const float square = magnitude * magnitude;
  const float decay = Precision::exp(magnitude * (-2.0f * kSqrt2OverPi - (2.0f * kSqrt2OverPi * kCubic) * square));
  const float upper = Precision::inverse(1.0f + decay), lower = decay * upper;
  return {lower, lower * upper * (2.0f * kSqrt2OverPi + (6.0f * kSqrt2OverPi * kCubic) * square)};
}

// gate = Phi; Phi(-m) = exp(-a^2) erfcx(a) / 2 with a = m / sqrt(2). erfcx is a polynomial in
// t = 1 / (1 + 0.4 a) - 1/2, fitted for least relative error on a in [0, 9.5] (2.7e-8); beyond, exp(-a^2) is below the
// smallest float.
template <typename Precision>
IGF_INLINE Gate exact_form(float magnitude) {
  const float a = magnitude * kSqrtHalf;
  const float t = Precision::inverse(1.0f + 0.4f * a) - 0.5f;
  float p = 0x1.b973eep-6f;
  p = p * t + 0x1.c9c414p-5f;
  p = p * t - 0x1.ab99ecp-4f;
  p = p * t - 0x1.5ac070p-3f;
  p = p * t + 0x1.0483aep-3f;
  p = p * t + 0x1.470dc4p-1f;
  p = p * t + 0x1.001286p+0f;
  p = p * t + 0x1.01c118p+0f;
  p = p * t + 0x1.7ca888p-1f;
  p = p * t + 0x1.afbb40p-3f;
  const float density = Precision::exp(-a * a);
  return {0.5f * density * p, kInvSqrt2Pi * density};
}

template <GeluKind kKind, typename Precision>
IGF_INLINE Gate gate_of(float magnitude) {
  if constexpr (kKind == GeluKind::kTanh) {
    return tanh_form<Precision>(magnitude);
  } else {
    return exact_form<Precision>(magnitude);
  }
}

IGF_INLINE float flat_magnitude(float v) {
  const float magnitude = v < 0.0f ? -v : v;
  return magnitude > kFlat ? kFlat : magnitude;
}

}  // namespace gelu_gate

template <GeluKind kKind, typename Precision>
IGF_INLINE float gelu(float v) {
  const float magnitude = gelu_gate::flat_magnitude(v);
  const float lost = magnitude * gelu_gate::gate_of<kKind, Precision>(magnitude).lower;
  return v > 0.0f ? v - lost : -lost;
}

// The derivative of gelu.
template <GeluKind kKind, typename Precision>
IGF_INLINE float slope(float v) {
  const float magnitude = gelu_gate::flat_magnitude(v);
  const gelu_gate::Gate gate = gelu_gate::gate_of<kKind, Precision>(magnitude);
  const float bent = magnitude * gate.change;
  return v > 0.0f ? 1.0f - (gate.lower - bent) : gate.lower - bent;
}

}  // namespace igf
