#include "simt/wgmma.h"

#include <cstring>

#include "cpu/clones.h"

namespace igf::simt {
namespace {

constexpr int kElements = 8;  // of a piece
constexpr int kPiecesOfDepth = kWgmmaDepth / kElements;

// The fields of a descriptor: where they begin; addresses and distances have 14 bits and leave 4 away.
constexpr int kStartBit = 0, kLeadingBit = 16, kStrideBit = 32, kSwizzleBit = 62;
constexpr uint64_t kField = 0x3fff;
constexpr uint64_t kMeant =
    kField << kStartBit | kField << kLeadingBit | kField << kStrideBit | uint64_t{3} << kSwizzleBit;

uint64_t field_of(uint32_t bytes, int bit) { return (static_cast<uint64_t>(bytes) >> 4 & kField) << bit; }
uint32_t bytes_of(uint64_t descriptor, int bit) { return static_cast<uint32_t>(descriptor >> bit & kField) << 4; }

// Modes of the field: 0 none, 1 128 bytes, 2 64, 3 32.
uint64_t mode_of(WgmmaSwizzle swizzle) { return (4 - static_cast<uint64_t>(swizzle)) % 4; }

// Shared memory in lines of 128 bytes: pieces of a line change places by the line's number, of which the last three bits
// count for k128, two for k64, one for k32. Rows of fewer than 128 bytes lie side by side in a line.
uint32_t swizzled(uint32_t address, WgmmaSwizzle swizzle) {
  const uint32_t exchanged = (1u << static_cast<int>(swizzle)) - 1;
  return address ^ ((address >> 7 & exchanged) << 4);
}

void decode_piece(const unsigned char* place, MmaInput input, float (&values)[kElements]) {
  uint16_t bits[kElements];
  std::memcpy(bits, place, sizeof bits);
  if (input == MmaInput::kBfloat16) {
    for (int i = 0; i < kElements; ++i) values[i] = from_bfloat16(bits[i]);
  } else {
    for (int i = 0; i < kElements; ++i) values[i] = from_half(bits[i]);
  }
}

// Calls put(element of M or N, element of k, value) for the whole operand.
template <typename Put>
void decode(const unsigned char* shared, const std::vector<uint32_t>& pieces, bool mn_dense, MmaInput input, Put put) {
  for (int piece = 0; piece < static_cast<int>(pieces.size()); ++piece) {
    float values[kElements];
    decode_piece(shared + pieces[static_cast<size_t>(piece)], input, values);
    for (int i = 0; i < kElements; ++i) {
      if (mn_dense) {
        put(kElements * (piece / kWgmmaDepth) + i, piece % kWgmmaDepth, values[i]);
      } else {
        put(piece / kPiecesOfDepth, kElements * (piece % kPiecesOfDepth) + i, values[i]);
      }
    }
  }
}

constexpr int kRowsAtOnce = 4, kColumnsAtOnce = 16;

// Blocks of 4 x 16 sums stay in registers over k. Every N that is served is a multiple of 16.
IGF_CLONES void multiply_blocks(const float (&a)[kWgmmaRows][kWgmmaDepth], const float (&b)[kWgmmaDepth][256],
                                int columns, float* sums) {
  for (int row = 0; row < kWgmmaRows; row += kRowsAtOnce) {
    for (int column = 0; column < columns; column += kColumnsAtOnce) {
      float block[kRowsAtOnce][kColumnsAtOnce];
      for (int r = 0; r < kRowsAtOnce; ++r) {
        std::memcpy(block[r], sums + (row + r) * columns + column, sizeof block[r]);
      }
      for (int k = 0; k < kWgmmaDepth; ++k) {
        for (int r = 0; r < kRowsAtOnce; ++r) {
          for (int c = 0; c < kColumnsAtOnce; ++c) {
            block[r][c] = __builtin_fmaf(a[row + r][k], b[k][column + c], block[r][c]);
          }
        }
      }
      for (int r = 0; r < kRowsAtOnce; ++r) {
        std::memcpy(sums + (row + r) * columns + column, block[r], sizeof block[r]);
      }
    }
  }
}

}  // namespace

uint64_t descriptor_of(const WgmmaTile& tile) {
  return field_of(tile.start, kStartBit) | field_of(tile.leading, kLeadingBit) | field_of(tile.stride, kStrideBit) |
         mode_of(tile.swizzle) << kSwizzleBit;
}

WgmmaTile tile_of(uint64_t descriptor) {
  const uint64_t mode = descriptor >> kSwizzleBit;
  return {bytes_of(descriptor, kStartBit), bytes_of(descriptor, kLeadingBit), bytes_of(descriptor, kStrideBit),
          static_cast<WgmmaSwizzle>((4 - mode) % 4)};
}

bool has_stray_bits(uint64_t descriptor) { return (descriptor & ~kMeant) != 0; }

namespace {

uint32_t place_of_piece(const WgmmaTile& tile, bool mn_dense, int piece) {
  const bool plain = tile.swizzle == WgmmaSwizzle::kNone;
  const uint32_t row = row_bytes(tile.swizzle);
  uint32_t place = tile.start;
  if (!mn_dense) {
    const uint32_t r = static_cast<uint32_t>(piece / kPiecesOfDepth);  // of M or N
    const uint32_t half = static_cast<uint32_t>(piece % kPiecesOfDepth);
    place += r / 8 * tile.stride + r % 8 * row + half * (plain ? tile.leading : kPiece);
  } else {
    const uint32_t k = static_cast<uint32_t>(piece % kWgmmaDepth);
    const uint32_t across = static_cast<uint32_t>(piece / kWgmmaDepth);  // pieces of M or N
    const uint32_t in_row = row / kPiece;
    // Without a swizzle the two distances change places.
    const uint32_t next_rows = plain ? tile.leading : tile.stride;
    const uint32_t next_atom = plain ? tile.stride : tile.leading;
    place += k / 8 * next_rows + k % 8 * row + across / in_row * next_atom + across % in_row * kPiece;
  }
  return swizzled(place, tile.swizzle);
}

}  // namespace

std::vector<uint32_t> pieces_of(const WgmmaTile& tile, bool mn_dense, int extent) {
  std::vector<uint32_t> places(static_cast<size_t>(extent * kPiecesOfDepth));
  for (size_t piece = 0; piece < places.size(); ++piece) {
    places[piece] = place_of_piece(tile, mn_dense, static_cast<int>(piece));
  }
  return places;
}

void decode_a(const unsigned char* shared, const std::vector<uint32_t>& pieces, const WgmmaForm& form,
              WgmmaOperands& operands) {
  decode(shared, pieces, form.transpose_a, form.input,
         [&](int row, int k, float value) { operands.a[row][k] = value; });
}

void decode_a(const uint32_t* const (&registers)[kWarpgroup], const WgmmaForm& form, WgmmaOperands& operands) {
  for (int thread = 0; thread < kWarpgroup; ++thread) {
    for (int i = 0; i < 4; ++i) {
      for (int half = 0; half < 2; ++half) {
        const Place at = place_in_wgmma_a(thread, i, half);
        const uint16_t bits = static_cast<uint16_t>(registers[thread][i] >> (16 * half));
        operands.a[at.row][at.column] = form.input == MmaInput::kBfloat16 ? from_bfloat16(bits) : from_half(bits);
      }
    }
  }
}

void decode_b(const unsigned char* shared, const std::vector<uint32_t>& pieces, const WgmmaForm& form,
              WgmmaOperands& operands) {
  decode(shared, pieces, form.transpose_b, form.input,
         [&](int column, int k, float value) { operands.b[k][column] = value; });
}

void multiply(const WgmmaOperands& operands, int columns, float* sums) {
  multiply_blocks(operands.a, operands.b, columns, sums);
}

}  // namespace igf::simt
