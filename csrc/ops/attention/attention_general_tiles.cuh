// Tiles of attention on CUDA cores, shared by the forward and the backward kernels: f32 in shared memory and registers.
//
// A block of 128 threads has an own tile (rows that it keeps) and walks over other tiles. Thread t stands at row
// r = t / 16, in [0, 8), and column c = t % 16: of a square own x other it holds rows r + 8 i and columns c + 16 j, of a
// product of an own tile's shape the rows r + 8 i and kColumns columns. So a row of the square belongs to half a warp.
//
// Shared memory, without bank conflicts: rows of a tile are kWidth + 4 floats apart, so that eight lanes which read 16
// bytes of eight rows meet all banks; rows of the square lie 16 floats apart modulo 32, for the two halves of a warp.
//
// How wide the tiles are: width up to    own x other   floats a thread reads from shared memory for one multiply-add
//   forward                       64     64 x 64       0.38; 0.38
//                                128     64 x 32       0.63; 0.38
//                                256     32 x 16       1.25; 0.50
//   backward                      64     64 x 64       0.38; 0.38
//                                128     32 x 32       0.75; 0.50
//                                256     16 x 16       1.50; 0.75       (square; sum over the square)
// Four warps read 32 floats a cycle and multiply 128: below 0.25 the multiplications bound the time. Larger tiles do
// not fit into the 99 KB that a block has on sm_86, sm_89 and sm_120.
#pragma once

#include "device/dtype.cuh"
#include "device/math.h"
#include "device/memory.cuh"
#include "device/words.cuh"
#include "ops/attention/attention_cuda.h"

namespace igf::attention::general {

using namespace device;

constexpr int kThreads = 128;
constexpr int kRowThreads = 8, kColumnThreads = 16;
constexpr int kWarps = kThreads / kWarp;

// kBlocksOf: for how many blocks of a multiprocessor the compiler leaves registers; shared memory has room for them on
// sm_90, and more would spill.
template <int kWidthOf, int kOwnRows, int kOtherRows, int kBlocksOf>
struct Tiling {
  static constexpr int kBlocks = kBlocksOf;
  static constexpr int kWidth = kWidthOf, kOwn = kOwnRows, kOther = kOtherRows;
  static constexpr int kRows = kOwn / kRowThreads, kSquares = kOther / kColumnThreads;  // of a thread
  static constexpr int kColumns = kWidth / kColumnThreads;
  static constexpr int kLanes = kColumns < 4 ? kColumns : 4;  // of one access to a row
  static constexpr int kPitch = kWidth + 4;
  static constexpr int kSquarePitch = kOther % 32 == 0 ? kOther + 16 : kOther;
  static constexpr int kOwnFloats = kOwn * kPitch, kOtherFloats = kOther * kPitch, kSquareFloats = kOwn * kSquarePitch;
  static_assert(kSquarePitch % 32 == 16 && kPitch / 4 % 2 == 1 && kOther % 4 == 0);
};

using Quad = Vector<float, 4>;

// a * b + c, rounded once; said outright, so that it is so in the emulator as on a GPU.
IGF_DEVICE float multiply_add(float a, float b, float c) { return math::Fused::multiply_add(a, b, c); }

// exp(product * scale - base). The score is rounded before base, which is a rounded score or lies near one, is taken from
// it: where a query sees one key alone, the exponent is then 0 and not the rounding error of base.
IGF_DEVICE float exp_of_score(float product, float scale, float base) {
  const float score = multiply_add(product, scale, 0.0f);  // said so, no compiler joins it with the subtraction
  return math::exp<math::Fused>(score - base);
}

IGF_DEVICE int row_of_thread() { return thread_x() / kColumnThreads; }     // [0, 8)
IGF_DEVICE int column_of_thread() { return thread_x() % kColumnThreads; }  // [0, 16)

// Rows [0, kRows) of a tile, zeros from row `count` and column `width` on. A warp reads a row at a time.
template <int kRows, int kWidth, typename T>
IGF_DEVICE void load_rows(float* tile, const T* rows, int64_t stride, int count, int width IGF_SITE_PARAMETER) {
  constexpr int kPieces = kWidth / kWarp;
  [[maybe_unused]] constexpr int kAtOnce = kPieces < 8 ? 8 / kPieces : 1;  // eight loads of a thread are under way together
#pragma unroll kAtOnce
  for (int r = thread_x() / kWarp; r < kRows; r += kWarps) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int d = piece * kWarp + lane_index();  // [0, kWidth)
      const bool inside = r < count && d < width;
      tile[r * (kWidth + 4) + d] = inside ? to_float(load(rows + r * stride + d IGF_SITE)) : 0.0f;
    }
  }
}

// The same from a tensor of any element, from row `first` of a head on.
template <int kRows, int kWidth>
IGF_DEVICE void load_tile(float* tile, const AttentionView<const void>& view, Element element, int64_t first,
                          int64_t head, int count, int width IGF_SITE_PARAMETER) {
  const int64_t at = first * view.row_stride + head * view.head_stride, stride = view.row_stride;
  switch (element) {
    case Element::kFloat:
      return load_rows<kRows, kWidth>(tile, static_cast<const float*>(view.data) + at, stride, count, width IGF_SITE);
    case Element::kBfloat16:
      return load_rows<kRows, kWidth>(tile, static_cast<const bfloat16*>(view.data) + at, stride, count,
                                      width IGF_SITE);
    case Element::kHalf:
      return load_rows<kRows, kWidth>(tile, static_cast<const half*>(view.data) + at, stride, count, width IGF_SITE);
  }
}

template <int kWidth, typename T>
IGF_DEVICE void store_rows(const float* tile, T* rows, int64_t stride, int count, int width IGF_SITE_PARAMETER) {
  for (int r = thread_x() / kWarp; r < count; r += kWarps) {
    for (int d = lane_index(); d < width; d += kWarp) {
      store(rows + r * stride + d, from_float<T>(tile[r * (kWidth + 4) + d]) IGF_SITE);
    }
  }
}

// Writes the first `count` rows of a tile.
template <int kWidth>
IGF_DEVICE void store_tile(const float* tile, const AttentionView<void>& view, Element element, int64_t first,
                           int64_t head, int count, int width IGF_SITE_PARAMETER) {
  const int64_t at = first * view.row_stride + head * view.head_stride, stride = view.row_stride;
  switch (element) {
    case Element::kFloat:
      return store_rows<kWidth>(tile, static_cast<float*>(view.data) + at, stride, count, width IGF_SITE);
    case Element::kBfloat16:
      return store_rows<kWidth>(tile, static_cast<bfloat16*>(view.data) + at, stride, count, width IGF_SITE);
    case Element::kHalf:
      return store_rows<kWidth>(tile, static_cast<half*>(view.data) + at, stride, count, width IGF_SITE);
  }
}

template <int kRows, int kColumns>
IGF_DEVICE void set_zero(float (&values)[kRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[i][c] = 0.0f;
  }
}

// square[i][j] = own row . other row, over `width` elements.
template <typename Tiling>
IGF_DEVICE void multiply(float (&square)[Tiling::kRows][Tiling::kSquares], const float* own, const float* other,
                         int width IGF_SITE_PARAMETER) {
  constexpr int kRows = Tiling::kRows, kSquares = Tiling::kSquares, kPitch = Tiling::kPitch;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kSquares; ++j) square[i][j] = 0.0f;
  }
  const float* const own_row = own + row_of_thread() * kPitch;
  const float* const other_row = other + column_of_thread() * kPitch;
#pragma unroll 1
  for (int d = 0; d < width; d += 4) {  // [0, width rounded up to 4): beyond the width are zeros
    Quad b[kSquares];
#pragma unroll
    for (int j = 0; j < kSquares; ++j) {
      b[j] = load(reinterpret_cast<const Quad*>(other_row + j * kColumnThreads * kPitch + d) IGF_SITE);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Quad a = load(reinterpret_cast<const Quad*>(own_row + i * kRowThreads * kPitch + d) IGF_SITE);
#pragma unroll
      for (int j = 0; j < kSquares; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) square[i][j] = multiply_add(a.lanes[e], b[j].lanes[e], square[i][j]);
      }
    }
  }
}

// Writes a thread's part of the square.
template <typename Tiling>
IGF_DEVICE void put_square(float* square, const float (&values)[Tiling::kRows][Tiling::kSquares]) {
  float* const row = square + row_of_thread() * Tiling::kSquarePitch + column_of_thread();
#pragma unroll
  for (int i = 0; i < Tiling::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tiling::kSquares; ++j) {
      row[i * kRowThreads * Tiling::kSquarePitch + j * kColumnThreads] = values[i][j];
    }
  }
}

// The place of a thread's n-th group of kLanes columns.
template <typename Tiling>
IGF_DEVICE int column_group(int n) {
  return (n * kColumnThreads + column_of_thread()) * Tiling::kLanes;
}

// sums[i][:] += square[i][:] other: over all rows of the other tile. A tile is summed up by itself before it is added, so
// that the error of a long sequence grows with the tiles and not with the rows.
template <typename Tiling>
IGF_DEVICE void accumulate(float (&sums)[Tiling::kRows][Tiling::kColumns], const float* square,
                           const float* other IGF_SITE_PARAMETER) {
  constexpr int kRows = Tiling::kRows, kLanes = Tiling::kLanes;
  using Lanes = Vector<float, kLanes>;
  const float* const row = square + row_of_thread() * Tiling::kSquarePitch;
#pragma unroll
  for (int n = 0; n < Tiling::kColumns / kLanes; ++n) {
    const float* const column = other + column_group<Tiling>(n);
    float parts[kRows][kLanes];
    set_zero(parts);
#pragma unroll 1
    for (int j = 0; j < Tiling::kOther; j += 4) {
      Quad a[kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        a[i] = load(reinterpret_cast<const Quad*>(row + i * kRowThreads * Tiling::kSquarePitch + j) IGF_SITE);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Lanes b = load(reinterpret_cast<const Lanes*>(column + (j + e) * Tiling::kPitch) IGF_SITE);
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
#pragma unroll
          for (int l = 0; l < kLanes; ++l) parts[i][l] = multiply_add(a[i].lanes[e], b.lanes[l], parts[i][l]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int l = 0; l < kLanes; ++l) sums[i][n * kLanes + l] += parts[i][l];
    }
  }
}

// Writes factors[i] * sums[i][:] into a tile, from where it goes out in whole rows.
template <typename Tiling>
IGF_DEVICE void put_rows(float* tile, const float (&sums)[Tiling::kRows][Tiling::kColumns],
                         const float (&factors)[Tiling::kRows] IGF_SITE_PARAMETER) {
  constexpr int kLanes = Tiling::kLanes;
  using Lanes = Vector<float, kLanes>;
#pragma unroll
  for (int i = 0; i < Tiling::kRows; ++i) {
    float* const row = tile + (row_of_thread() + i * kRowThreads) * Tiling::kPitch;
#pragma unroll
    for (int n = 0; n < Tiling::kColumns / kLanes; ++n) {
      Lanes values;
#pragma unroll
      for (int l = 0; l < kLanes; ++l) values.lanes[l] = factors[i] * sums[i][n * kLanes + l];
      store(reinterpret_cast<Lanes*>(row + column_group<Tiling>(n)), values IGF_SITE);
    }
  }
}

// Over the 16 threads of a row.
template <typename Reduce>
IGF_DEVICE float reduce_row(Reduce reduce, float value IGF_SITE_PARAMETER) {
#pragma unroll
  for (int mask = kColumnThreads / 2; mask > 0; mask /= 2) {
    value = reduce(value, shuffle_xor(value, mask, kAllLanes IGF_SITE));
  }
  return value;
}

}  // namespace igf::attention::general
