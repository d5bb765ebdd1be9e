// Attention forward on CUDA cores: f32, and every width and alignment that tensor cores do not serve.
//
// Work: a block owns a tile of queries of one head and walks over the tiles of keys that some of them see: scores, online
// softmax, sum of values. 4 * width flops for each query and key of these tiles, by multiply-adds in f32.
// Memory: q once in, out and lse once out; the tiles of k and v once for every tile of queries that sees them, from
// the second-level cache. Bytes: q, out rows * heads * width elements each, lse 4 * rows * heads, k and v each
// sum over (head, tile of queries) of the rows of the tiles seen * width elements.
// Numbers: everything in f32, exp to 1.1 ulp; sums over a row of 16 threads in a fixed order: equal bits on repeat.
// Limits: bound by reads of shared memory or by multiply-adds, see attention_general_tiles.cuh. Per block 128 threads
// and 38, 73, 81, 69 KB of shared memory at width 32, 64, 128, 256; three to six blocks on a multiprocessor with 228 KB
// hide each other's loads. Widths up to 256, any strides and alignment. Not measured on a GPU.
// Source: Dao et al. 2022, arXiv:2205.14135, algorithm 1; Milakov and Gimelshein 2018, arXiv:1805.02867 (running maximum).
#include <cmath>

#include "device/launch.cuh"
#include "device/math.h"
#include "device/reductions.cuh"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/attention_dropout.cuh"
#include "ops/attention/attention_general_tiles.cuh"
#include "ops/attention/attention_sequences.cuh"

namespace igf {
namespace {

using namespace device;
using namespace attention;
using namespace attention::general;

// What a thread keeps of its rows while it walks over the keys; `sum` is the thread's own part.
template <typename Tiles>
struct Rows {
  float maximum[Tiles::kRows];
  float sum[Tiles::kRows];
  float out[Tiles::kRows][Tiles::kColumns];
};

// From products to exp(score - maximum), 0 where a query does not see a key; keeps the running maximum and sum.
// i: the thread's first query, j: its first key; `whole` when nothing in the tile is hidden.
template <typename Tiles>
IGF_DEVICE void soften(float (&square)[Tiles::kRows][Tiles::kSquares], Rows<Tiles>& rows, const Sight& sight, float scale,
                       int first_i, int first_j, bool whole) {
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    float top = -INFINITY;
#pragma unroll
    for (int j = 0; j < Tiles::kSquares; ++j) {
      const bool seen = whole || sight.sees(first_i + i * kRowThreads, first_j + j * kColumnThreads);
      square[i][j] = seen ? square[i][j] : -INFINITY;
      top = fmaxf(top, square[i][j]);
    }
    top = fmaxf(rows.maximum[i], scale * reduce_row(Max(), top));
    const float base = top == -INFINITY ? 0.0f : top;  // as long as the row has seen no key, all are exp(-infinity)
    const float before = math::exp<math::Fused>(rows.maximum[i] - base);
    rows.maximum[i] = top;
    rows.sum[i] *= before;
#pragma unroll
    for (int c = 0; c < Tiles::kColumns; ++c) rows.out[i][c] *= before;
#pragma unroll
    for (int j = 0; j < Tiles::kSquares; ++j) {
      square[i][j] = exp_of_score(square[i][j], scale, base);
      rows.sum[i] += square[i][j];
    }
  }
}

// Drops elements of the softmax and enlarges what is left. row: the thread's first query in the whole batch.
template <typename Tiles>
IGF_DEVICE void drop(float (&square)[Tiles::kRows][Tiles::kSquares], const Dropout& dropout, philox::Key key, int64_t row,
                     int head, int tile_begin) {
  const int first = tile_begin / 64 * 64 + column_of_thread(), shift = tile_begin % 64 / 16;
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const uint32_t kept = kept_of_four(dropout, key, row + i * kRowThreads, head, first) >> shift;
#pragma unroll
    for (int j = 0; j < Tiles::kSquares; ++j) square[i][j] = (kept >> j & 1) != 0 ? square[i][j] * dropout.factor : 0.0f;
  }
}

// Writes out and lse of the tile's rows.
template <typename Tiles>
IGF_DEVICE void finish(const AttentionForwardCall& a, Rows<Tiles>& rows, float* tile, const SequenceTile& at, int head) {
  const int first = at.tile * Tiles::kOwn, width = static_cast<int>(a.shape.width);
  const int count = at.q_count - first < Tiles::kOwn ? at.q_count - first : Tiles::kOwn;
  float shares[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const float sum = reduce_row(Add(), rows.sum[i]);
    shares[i] = sum == 0.0f ? 0.0f : 1.0f / sum;
    const int r = row_of_thread() + i * kRowThreads;  // [0, kOwn)
    if (column_of_thread() == 0 && r < count) {
      const float lse = sum == 0.0f ? -INFINITY : rows.maximum[i] + math::log<math::Fused>(sum);
      store(a.lse + head * a.batch.q_rows + at.q_begin + first + r, lse);
    }
  }
  put_rows<Tiles>(tile, rows.out, shares);
  block_barrier();  // every row of the tile is there
  store_tile<Tiles::kWidth>(tile, a.out, a.element, at.q_begin + first, head, count, width);
}

template <typename Tiles>
IGF_KERNEL(kThreads, Tiles::kBlocks) attention_general_forward_tiles(AttentionForwardCall a, Dropout dropout, int64_t slots) {
  IGF_DYNAMIC_SHARED(bytes);
  float* const queries = reinterpret_cast<float*>(bytes);
  float* const keys = queries + Tiles::kOwnFloats;
  float* const values = keys + Tiles::kOtherFloats;
  float* const softmax = values + Tiles::kOtherFloats;

  const int head = static_cast<int>(block_x() % a.shape.heads);
  const int64_t kv_head = head / (a.shape.heads / a.shape.kv_heads);
  const int64_t slot = slots - 1 - block_x() / a.shape.heads;  // causal: the longest walks begin first
  const SequenceTile at = tile_of_slot<false>(a.batch, slot, Tiles::kOwn);
  const int first = at.tile * Tiles::kOwn;
  if (first >= at.q_count) return;
  const int count = at.q_count - first < Tiles::kOwn ? at.q_count - first : Tiles::kOwn;
  const int width = static_cast<int>(a.shape.width);
  const Sight sight = sight_of(a.shape, at);
  const int begin = sight.first_key(first) / Tiles::kOther * Tiles::kOther, end = sight.end_key(first + count);
  const philox::Key key = dropout.seed == nullptr ? philox::Key{} : philox::key_of(load(dropout.seed));

  Rows<Tiles> rows;
  set_zero(rows.out);
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) rows.maximum[i] = -INFINITY, rows.sum[i] = 0.0f;
  if (begin < end) {
    load_tile<Tiles::kOwn, Tiles::kWidth>(queries, a.q, a.element, at.q_begin + first, head, count, width);
  }
  for (int j = begin; j < end; j += Tiles::kOther) {
    const int there = at.k_count - j;  // keys of the tile, or more
    load_tile<Tiles::kOther, Tiles::kWidth>(keys, a.k, a.element, at.k_begin + j, kv_head, there, width);
    load_tile<Tiles::kOther, Tiles::kWidth>(values, a.v, a.element, at.k_begin + j, kv_head, there, width);
    block_barrier();  // queries, keys and values are there
    float square[Tiles::kRows][Tiles::kSquares];
    multiply<Tiles>(square, queries, keys, width);
    soften(square, rows, sight, a.shape.scale, first + row_of_thread(), j + column_of_thread(),
           sight.all_see(first, first + count, j, j + Tiles::kOther));
    if (dropout.seed != nullptr) {
      drop<Tiles>(square, dropout, key, at.q_begin + first + row_of_thread(), head, j);
    }
    put_square<Tiles>(softmax, square);
    warp_barrier();  // a row of the softmax is written and read by half a warp
    accumulate<Tiles>(rows.out, softmax, values);
    block_barrier();  // keys, values and the softmax have been read
  }
  finish(a, rows, queries, at, head);
}

template <typename Tiles>
void forward(const AttentionForwardCall& a, const DeviceContext& context) {
  const int64_t slots = tile_slots(a.batch, a.batch.q_rows, a.batch.q_length, Tiles::kOwn);
  const int64_t floats = Tiles::kOwnFloats + 2 * Tiles::kOtherFloats + Tiles::kSquareFloats;
  if (slots == 0) return;
  launch("attention_general_forward", &attention_general_forward_tiles<Tiles>,
         {slots * a.shape.heads, 1, kThreads, 1, floats * static_cast<int64_t>(sizeof(float))}, context, a,
         dropout_of(a.shape, a.dropout_seed), slots);
}

}  // namespace

void attention_general_forward(const AttentionForwardCall& call, const DeviceContext& context) {
  if (call.shape.width <= 32) return forward<Tiling<32, 64, 64, 3>>(call, context);
  if (call.shape.width <= 64) return forward<Tiling<64, 64, 64, 3>>(call, context);
  if (call.shape.width <= 128) return forward<Tiling<128, 64, 32, 2>>(call, context);
  forward<Tiling<256, 32, 16, 3>>(call, context);
}

}  // namespace igf
