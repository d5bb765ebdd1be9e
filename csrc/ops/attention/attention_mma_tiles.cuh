// Tiles of attention's operands in shared memory for mma.sync: copies in, fragments out, none with bank conflicts.
//
// A tile is an array of rows of kWidth elements of 16 bits (one row a query or a key), one after another without gaps.
// A row is kWidth / 8 chunks of 16 bytes, and row r keeps chunk c at the place of chunk c ^ turn(r):
//
//   width  chunks a row  kSwap = gcd(chunks, 8)  turn(r)
//    64         8                 8              r % 8
//    80        10                 2              r / 4 % 2
//    96        12                 4              r / 2 % 4
//   128        16                 8              r % 8
//
// Rows begin chunks * r groups of four banks further on, which repeats after 8 / kSwap rows; turn() then moves on. So
// one chunk of 8 rows in a line (a matrix of ldmatrix, or the words of a fragment of sums) lies in all 32 banks, and so
// do kSwap chunks of 8 / kSwap rows in a line (8 threads of a copy). turn() has a period of 8 rows: a tile may be
// entered at any row that is a multiple of 8, `tile + 8 * n * kWidth` is a tile again.
//
// A block of 128 threads multiplies a [rows, width] tile Q by the transpose of a [keys, width] tile K like this:
//
//   copy_tile_async<kThreads, kRows>(tile, q, row, head, count);   // every thread; rows from `count` on become 0
//   ptx::cp_async_commit(); ptx::cp_async_wait<0>(); block_barrier();
//   load_a<kWidth>(a, q_tile + 16 * m * kWidth, k);                // A = 16 rows of Q, columns [16 k, 16 k + 16)
//   load_b_rows<kWidth>(b, k_tile + 16 * n * kWidth, k);           // B = the same columns of 16 keys, transposed
//   multiply<T>(sums[2 * n], sums[2 * n + 1], a, b);               // sums[16 x 8] twice += A B
//
// and what A and B may be taken from:
//   load_a              A[m][k] = tile[m][16 * chunk_pair + k]     rows are m
//   load_a_columns      A[m][k] = tile[k][16 * chunk_pair + m]     rows are k (ldmatrix.trans)
//   load_b_rows         B[k][n] = tile[n][16 * chunk_pair + k]     rows are n
//   load_b_columns      B[k][n] = tile[k][16 * chunk_pair + n]     rows are k (ldmatrix.trans)
//   a_of_sums           A from sums that the warp holds itself, rounded to T; nothing is moved
#pragma once

#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "ops/attention/attention.h"

namespace igf::attention {

using device::kWarp;

constexpr int kChunk = 8;  // elements of 16 bytes

template <int kWidth>
struct TileLayout {
  static_assert(kWidth % 16 == 0, "a fragment is 16 elements wide");
  static constexpr int kChunks = kWidth / kChunk;
  static constexpr int kSwap = kChunks % 8 == 0 ? 8 : kChunks % 4 == 0 ? 4 : 2;
  static constexpr int kRepeat = 8 / kSwap;  // rows with one turn

  IGF_DEVICE static int turn(int row) { return row / kRepeat % kSwap; }
  // Where a chunk begins, in elements.
  IGF_DEVICE static int place(int row, int chunk) { return row * kWidth + (chunk ^ turn(row)) * kChunk; }
  // The place 2 * pair chunks beside `at`, the place of chunk 0 or 1 of any row.
  IGF_DEVICE static int beside(int at, int pair) {
    return (at ^ (2 * pair % kSwap * kChunk)) + 2 * pair / kSwap * kSwap * kChunk;
  }
};

// How a block's threads share rows out for accesses of 16 bytes: kSwap threads go along a row, the others take the next
// rows. A thread's rows have one turn, so that its places differ by constants.
template <int kWidth, int kThreads>
struct RowsByThread {
  using Layout = TileLayout<kWidth>;
  static constexpr int kStep = kThreads / Layout::kSwap;              // rows from one of a thread's rows to the next
  static constexpr int kAcross = Layout::kChunks / Layout::kSwap;    // chunks of a thread in a row
  static_assert(kStep % 8 == 0, "all rows of a thread have one turn");
};

// Visits the thread's chunks of a tile's first kRows rows: visit(row, place in the tile, first column).
template <int kWidth, int kThreads, int kRows, typename Visit>
IGF_DEVICE void for_each_chunk(int thread, const Visit& visit) {
  using Layout = TileLayout<kWidth>;
  using Share = RowsByThread<kWidth, kThreads>;
  static_assert(kRows % Share::kStep == 0, "every thread has the same number of rows");
  const int row = thread / Layout::kSwap;    // [0, kStep)
  const int chunk = thread % Layout::kSwap;  // [0, kSwap)
  const int place = Layout::place(row, chunk);
#pragma unroll
  for (int step = 0; step < kRows / Share::kStep; ++step) {
#pragma unroll
    for (int across = 0; across < Share::kAcross; ++across) {
      const int columns = across * Layout::kSwap * kChunk;
      visit(row + step * Share::kStep, place + step * Share::kStep * kWidth + columns, chunk * kChunk + columns);
    }
  }
}

// Starts the copy of `count` rows of one head, from `row` on, into a tile of kRows; the rows from `count` on become 0.
// All threads of the block must call it; count > 0, rows of the tensor on 16 bytes. The caller commits and waits.
template <int kWidth, int kThreads, int kRows, typename T>
IGF_DEVICE void copy_tile_async(T* tile, const AttentionView<const void>& from, int64_t row, int64_t head,
                                int count IGF_SITE_PARAMETER) {
  using Layout = TileLayout<kWidth>;
  using Share = RowsByThread<kWidth, kThreads>;
  static_assert(kRows % Share::kStep == 0, "every thread has the same number of rows");
  const int chunk = device::thread_x() % Layout::kSwap;
  int inner = device::thread_x() / Layout::kSwap;  // a row of the tile
  T* to = tile + Layout::place(inner, chunk);
  const T* const data = static_cast<const T*>(from.data);
  // From row to row by additions: products of strides and rows would be kept in registers from tile to tile.
  const T* source = data + (row + inner) * from.row_stride + head * from.head_stride + chunk * kChunk;
#pragma unroll
  for (int step = 0; step < kRows / Share::kStep; ++step) {
    const bool inside = inner < count;  // outside, nothing is read, though an aligned address is asked for
#pragma unroll
    for (int across = 0; across < Share::kAcross; ++across) {
      const int columns = across * Layout::kSwap * kChunk;
      device::ptx::cp_async_zero_fill<16>(to + columns, inside ? source + columns : data, inside ? 16 : 0 IGF_SITE);
    }
    inner += Share::kStep;
    to += Share::kStep * kWidth;
    source += Share::kStep * from.row_stride;
  }
}

// Fragments, by all lanes of a warp, of 16 rows and 16 columns of a tile. `tile` points to the first of the rows, at a
// multiple of 8; pair, in [0, kWidth / 16), counts the 16 columns. b[0] is of the first 8 columns of B, b[1] of the
// second. Each of them takes four matrices: rows 0-7 and 8-15 of the first 8 columns, then of the second. So a lane
// always points to the same place, and fragments differ in which matrix goes into which register.
template <int kWidth, bool kTransposed, typename T>
IGF_DEVICE void load_square(uint32_t (&matrices)[4], const T* tile, int pair IGF_SITE_PARAMETER) {
  using Layout = TileLayout<kWidth>;
  const int lane = device::lane_index();
  const int place = Layout::beside(Layout::place(lane % 16, lane / 16), pair);
  device::ptx::ldmatrix<4, kTransposed>(matrices, tile + place IGF_SITE);
}

template <int kWidth, typename T>
IGF_DEVICE void load_a(uint32_t (&a)[4], const T* tile, int pair IGF_SITE_PARAMETER) {
  load_square<kWidth, false>(a, tile, pair IGF_SITE);
}

template <int kWidth, typename T>
IGF_DEVICE void load_a_columns(uint32_t (&a)[4], const T* tile, int pair IGF_SITE_PARAMETER) {
  uint32_t matrices[4];
  load_square<kWidth, true>(matrices, tile, pair IGF_SITE);
  a[0] = matrices[0], a[1] = matrices[2], a[2] = matrices[1], a[3] = matrices[3];
}

template <int kWidth, typename T>
IGF_DEVICE void load_b_rows(uint32_t (&b)[2][2], const T* tile, int pair IGF_SITE_PARAMETER) {
  uint32_t matrices[4];
  load_square<kWidth, false>(matrices, tile, pair IGF_SITE);
  b[0][0] = matrices[0], b[0][1] = matrices[2], b[1][0] = matrices[1], b[1][1] = matrices[3];
}

template <int kWidth, typename T>
IGF_DEVICE void load_b_columns(uint32_t (&b)[2][2], const T* tile, int pair IGF_SITE_PARAMETER) {
  uint32_t matrices[4];
  load_square<kWidth, true>(matrices, tile, pair IGF_SITE);
  b[0][0] = matrices[0], b[0][1] = matrices[1], b[1][0] = matrices[2], b[1][1] = matrices[3];
}

// 16 x 16 sums, columns 0-7 in `left` and 8-15 in `right`, rounded to T as the A of another product.
template <typename T>
IGF_DEVICE void a_of_sums(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = device::ptx::pack_pair<T>(left[0], left[1]);
  a[1] = device::ptx::pack_pair<T>(left[2], left[3]);
  a[2] = device::ptx::pack_pair<T>(right[0], right[1]);
  a[3] = device::ptx::pack_pair<T>(right[2], right[3]);
}

// left += A b[0], right += A b[1].
template <typename T>
IGF_DEVICE void multiply(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                         const uint32_t (&b)[2][2] IGF_SITE_PARAMETER) {
  device::ptx::mma_m16n8k16<T>(left, a, b[0] IGF_SITE);
  device::ptx::mma_m16n8k16<T>(right, a, b[1] IGF_SITE);
}

// A lane's part of 16 x 8 sums is sums[2 * half + e]: row sum_row(half), column sum_column() + e.
IGF_DEVICE int sum_row(int half) { return device::lane_index() / 4 + 8 * half; }
IGF_DEVICE int sum_column() { return device::lane_index() % 4 * 2; }

// Puts two neighbouring values of a fragment, rounded to T, at their place of a tile: 8-column group `chunk` of `row`.
template <int kWidth, typename T>
IGF_DEVICE void store_sums(T* tile, int row, int chunk, float low, float high IGF_SITE_PARAMETER) {
  const int place = TileLayout<kWidth>::place(row, chunk) + sum_column();
  device::store(reinterpret_cast<uint32_t*>(tile + place), device::ptx::pack_pair<T>(low, high) IGF_SITE);
}

}  // namespace igf::attention
