// What tensor-core instructions compute, and which lane and register holds which element: plain functions of 32 lanes.
//
// Numbers: products are exact and each is added to the f32 sum in the order k = 0, 1, ... with one rounding to nearest.
// A GPU adds several products at once with fewer bits kept and truncates: its last bits differ, and differ between
// architectures. Integer-valued inputs whose sums stay below 2^24 give equal bits everywhere.
//
// Source: PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type", "Warp-level matrix load
// instruction: ldmatrix", "Warp-level matrix store instruction: stmatrix".
#pragma once

#include <bit>
#include <cstdint>

namespace igf::simt {

inline constexpr int kLanes = 32;

// Where an element of a matrix stands.
struct Place {
  int row, column;
};

// mma.m16n8k16, 16-bit inputs: the element in the half `half` of register `index` of a lane.
// A is 16 x 16 in 4 registers, B 16 x 8 in 2; C and D are 16 x 8, one f32 in each of 4 registers.
constexpr Place place_in_a(int lane, int index, int half) {
  return {lane / 4 + 8 * (index % 2), 2 * (lane % 4) + half + 8 * (index / 2)};
}
constexpr Place place_in_b(int lane, int index, int half) { return {2 * (lane % 4) + half + 8 * index, lane / 4}; }
constexpr Place place_in_c(int lane, int index) { return {lane / 4 + 8 * (index / 2), 2 * (lane % 4) + index % 2}; }

// An 8 x 8 matrix of ldmatrix or stmatrix: the element in the half `half` of a lane's register.
constexpr Place place_in_8x8(int lane, int half, bool transposed) {
  const Place plain{lane / 4, 2 * (lane % 4) + half};
  return transposed ? Place{plain.column, plain.row} : plain;
}

enum class MmaInput : uint8_t { kBfloat16, kHalf };

inline float from_bfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline float from_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction / 2^24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide = exponent == 0x1fu ? 0xffu : exponent + 112;  // the biases are 15 and 127
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

// The registers of a warp for one mma.
struct MmaOperands {
  uint32_t a[kLanes][4];
  uint32_t b[kLanes][2];
  float sums[kLanes][4];
};

// operands.sums += A B
void mma_m16n8k16(MmaInput input, MmaOperands& operands);

// The registers that ldmatrix gives the lanes for one matrix with these rows, and back for stmatrix.
void matrix_to_registers(const uint16_t (&matrix)[8][8], bool transposed, uint32_t (&registers)[kLanes]);
void registers_to_matrix(const uint32_t (&registers)[kLanes], bool transposed, uint16_t (&matrix)[8][8]);

}  // namespace igf::simt
