// Storage types bfloat16 and half for CPU loops: 16 bits in memory, float in registers. Torch-free.
//
// Layouts equal those of torch.bfloat16 and torch.float16, so a tensor's data pointer can be read as one of these.
// The conversions have no branches: gcc turns them into selects and vectorises the loops they stand in.
// Rounding is to nearest, ties to even; NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/clones.h"

namespace igf {

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct bfloat16 {
  uint16_t bits;

  bfloat16() = default;
  IGF_INLINE explicit bfloat16(float value) {
    const uint32_t wide = bits_from_float(value);
    // Adding 0x7fff plus the lowest kept bit carries exactly when the dropped half rounds up to an even result.
    const uint32_t rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    const bool is_nan = (wide & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(is_nan ? ((wide >> 16) | 0x40u) : rounded);
  }
  IGF_INLINE explicit operator float() const { return float_from_bits(static_cast<uint32_t>(bits) << 16); }
};

struct half {
  uint16_t bits;

  half() = default;
  IGF_INLINE explicit half(float value) {
    const uint32_t wide = bits_from_float(value);
    const uint32_t sign = (wide >> 16) & 0x8000u;
    const uint32_t magnitude = wide & 0x7fffffffu;
    // Normal range: move the exponent bias from 127 to 15 and round the 13 dropped bits.
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Below 2^-14 the result counts steps of 2^-24: adding 0.5 puts that count, correctly rounded, into the low bits.
    const uint32_t subnormal = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t narrow = magnitude < (113u << 23) ? subnormal : normal;
    narrow = magnitude >= 0x477ff000u ? 0x7c00u : narrow;  // 65520 and above round to infinity
    narrow = magnitude > 0x7f800000u ? 0x7e00u : narrow;   // NaN
    bits = static_cast<uint16_t>(sign | narrow);
  }
  IGF_INLINE explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    // Multiplying by 2^112 corrects the exponent bias and normalises subnormals in one exact step.
    const uint32_t finite = bits_from_float(float_from_bits(magnitude << 13) * 0x1p112f);
    const uint32_t special = 0x7f800000u | (magnitude << 13);
    return float_from_bits(sign | (magnitude >= 0x7c00u ? special : finite));
  }
};

}  // namespace igf
