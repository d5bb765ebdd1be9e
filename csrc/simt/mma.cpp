#include "simt/mma.h"

#include "cpu/clones.h"

namespace igf::simt {
namespace {

constexpr int kM = 16, kN = 8, kK = 16;

float element(MmaInput input, uint32_t pair, int half) {
  const uint16_t bits = static_cast<uint16_t>(pair >> (16 * half));
  return input == MmaInput::kBfloat16 ? from_bfloat16(bits) : from_half(bits);
}

// c += a b. Compiled for processors that multiply and add in one instruction too: elsewhere each is a call.
IGF_CLONES void multiply_add(const float (&a)[kM][kK], const float (&b)[kK][kN], float (&c)[kM][kN]) {
  for (int row = 0; row < kM; ++row) {
    for (int k = 0; k < kK; ++k) {
      for (int column = 0; column < kN; ++column) {
        c[row][column] = __builtin_fmaf(a[row][k], b[k][column], c[row][column]);
      }
    }
  }
}

}  // namespace

void mma_m16n8k16(MmaInput input, MmaOperands& operands) {
  float a[kM][kK], b[kK][kN], c[kM][kN];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {
        const Place at = place_in_a(lane, i, half);
        a[at.row][at.column] = element(input, operands.a[lane][i], half);
      }
      for (int i = 0; i < 2; ++i) {
        const Place at = place_in_b(lane, i, half);
        b[at.row][at.column] = element(input, operands.b[lane][i], half);
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = place_in_c(lane, i);
      c[at.row][at.column] = operands.sums[lane][i];
    }
  }
  multiply_add(a, b, c);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place at = place_in_c(lane, i);
      operands.sums[lane][i] = c[at.row][at.column];
    }
  }
}

void matrix_to_registers(const uint16_t (&matrix)[8][8], bool transposed, uint32_t (&registers)[kLanes]) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Place low = place_in_8x8(lane, 0, transposed);
    const Place high = place_in_8x8(lane, 1, transposed);
    registers[lane] = matrix[low.row][low.column] | static_cast<uint32_t>(matrix[high.row][high.column]) << 16;
  }
}

void registers_to_matrix(const uint32_t (&registers)[kLanes], bool transposed, uint16_t (&matrix)[8][8]) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Place low = place_in_8x8(lane, 0, transposed);
    const Place high = place_in_8x8(lane, 1, transposed);
    matrix[low.row][low.column] = static_cast<uint16_t>(registers[lane]);
    matrix[high.row][high.column] = static_cast<uint16_t>(registers[lane] >> 16);
  }
}

}  // namespace igf::simt
