// What wgmma computes, where its operands lie in shared memory and which thread holds which sum: plain functions.
//
// Numbers: as of mma (mma.h): exact products, each added to the f32 sum with one rounding, k rising.
//
// Source: PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Instructions": "Register Fragments", "Shared Memory Matrix
// Layout", "Strides" (canonical layouts), "Matrix Descriptor Format".
#pragma once

#include <cstdint>
#include <vector>

#include "simt/mma.h"

namespace igf::simt {

inline constexpr int kWarpgroup = 128;  // threads
inline constexpr int kWgmmaRows = 64;   // of A and of the sums
inline constexpr int kWgmmaDepth = 16;  // columns of A, rows of B
inline constexpr uint32_t kPiece = 16;  // bytes that no layout takes apart: 8 elements

// What all threads of a warpgroup must say alike.
struct WgmmaForm {
  MmaInput input = MmaInput::kBfloat16;
  int columns = 0;  // N
  bool a_in_registers = false;
  bool transpose_a = false;
  bool transpose_b = false;
  bool operator==(const WgmmaForm&) const = default;
};

// How many bytes of a row of a tile are exchanged among each other: log2(bytes / 16), 0 for none.
enum class WgmmaSwizzle : uint8_t { kNone, k32, k64, k128 };
constexpr uint32_t row_bytes(WgmmaSwizzle swizzle) { return kPiece << static_cast<int>(swizzle); }
// Where a swizzle repeats: addresses that are multiples of this begin a pattern.
constexpr uint32_t pattern_bytes(WgmmaSwizzle swizzle) { return 8 * row_bytes(swizzle); }

// A matrix descriptor, in bytes. `start` counts from where shared memory begins.
struct WgmmaTile {
  uint32_t start = 0;
  uint32_t leading = 0;
  uint32_t stride = 0;
  WgmmaSwizzle swizzle = WgmmaSwizzle::kNone;
};

inline constexpr uint32_t kDescriptorBytes = 1u << 18;  // addresses and distances are smaller
uint64_t descriptor_of(const WgmmaTile& tile);
WgmmaTile tile_of(uint64_t descriptor);
// Whether bits are set that mean nothing, or a base offset.
bool has_stray_bits(uint64_t descriptor);

// The operand's pieces, in shared memory. `extent`: M or N. K dense: piece i holds the elements 8 (i % 2) to 8 (i % 2) + 7
// of k in row i / 2 of M or N; M or N dense: the elements 8 (i / 16) to 8 (i / 16) + 7 of M or N in row i % 16 of k.
std::vector<uint32_t> pieces_of(const WgmmaTile& tile, bool mn_dense, int extent);

// Where an element of the sums stands: of thread `thread` of the warpgroup, in its register `index`; the same of the two
// halves of its registers of A.
constexpr Place place_in_sums(int thread, int index) {
  return {16 * (thread / 32) + thread % 32 / 4 + 8 * (index / 2 % 2), 8 * (index / 4) + 2 * (thread % 4) + index % 2};
}
constexpr Place place_in_wgmma_a(int thread, int index, int half) {
  const Place in_warp = place_in_a(thread % 32, index, half);
  return {16 * (thread / 32) + in_warp.row, in_warp.column};
}

// Operands as floats: A by row, B by row of k.
struct WgmmaOperands {
  float a[kWgmmaRows][kWgmmaDepth];
  float b[kWgmmaDepth][256];
};

// Decodes an operand out of its pieces, places in shared memory, which begins at `shared`; A out of the threads' registers.
void decode_a(const unsigned char* shared, const std::vector<uint32_t>& pieces, const WgmmaForm& form,
              WgmmaOperands& operands);
void decode_a(const uint32_t* const (&registers)[kWarpgroup], const WgmmaForm& form, WgmmaOperands& operands);
void decode_b(const unsigned char* shared, const std::vector<uint32_t>& pieces, const WgmmaForm& form,
              WgmmaOperands& operands);

// sums[64][columns] += A B
void multiply(const WgmmaOperands& operands, int columns, float* sums);

}  // namespace igf::simt
