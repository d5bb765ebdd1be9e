// Attention backward on CUDA cores: f32, and every width and alignment that tensor cores do not serve.
//
// Work: two kernels, each of which computes scores and softmax again from lse, so that no two blocks add to one place.
//   queries   a block owns a tile of queries of one head: delta = rowsum(dout * out); over the keys, dq
//   keys      a block owns a tile of keys of one key head: over the queries of the heads that read it, dk and dv
// 14 * width flops for each query and key of the tiles seen: 3 products for dq, 4 for dk and dv, by multiply-adds in f32.
// Memory: what a block owns once, the other side's tiles once for every own tile that sees them, from the second-level
// cache. Bytes, in elements of heads * width: q, dout, out, dq once a row; k, v for every tile of queries that sees them;
// k, v, dk, dv once a row; q, dout for every tile of keys and head that sees them; lse and delta, f32, with them.
// Numbers: everything in f32, exp to 1.1 ulp; each sum by one thread, in the order of the rows: equal bits on repeat,
// asked for or not.
// Limits: bound by reads of shared memory or by multiply-adds, see attention_general_tiles.cuh. Per block 128 threads
// and 57, 90, 74, 68 KB of shared memory at width 32, 64, 128, 256. Widths up to 256, any strides and alignment. Not
// measured on a GPU.
// Source: Dao et al. 2022, arXiv:2205.14135, appendix B.2.
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

// Shared memory: two own tiles, two other tiles, the square.
template <typename Tiles>
struct Memory {
  float *own[2], *other[2], *square;

  IGF_DEVICE explicit Memory(unsigned char* bytes) {
    own[0] = reinterpret_cast<float*>(bytes);
    own[1] = own[0] + Tiles::kOwnFloats;
    other[0] = own[1] + Tiles::kOwnFloats;
    other[1] = other[0] + Tiles::kOtherFloats;
    square = other[1] + Tiles::kOtherFloats;
  }
};

// 1 / (1 - p) or 0: what dropout multiplies an element by. `kept` holds its bit at `bit`.
IGF_DEVICE float kept_factor(const Dropout& dropout, uint32_t kept, int bit) {
  return (kept >> bit & 1) != 0 ? dropout.factor : 0.0f;
}

// delta of the tile's rows into `deltas`, and into the workspace, from the tiles of dout and out. Added up in the order of
// multiply(): where a query sees one key, its score's gradient is then 0 to the last bit.
template <typename Tiles>
IGF_DEVICE void find_delta(float* deltas, const AttentionBackwardCall& a, const float* dout, const float* out,
                           int64_t row, int head, int count) {
  const int r = thread_x();
  if (r >= Tiles::kOwn) return;
  float sum = 0.0f;
  for (int d = 0; d < a.shape.width; d += 4) {  // beyond the width are zeros
    const Quad x = load(reinterpret_cast<const Quad*>(dout + r * Tiles::kPitch + d));
    const Quad y = load(reinterpret_cast<const Quad*>(out + r * Tiles::kPitch + d));
#pragma unroll
    for (int e = 0; e < 4; ++e) sum = multiply_add(x.lanes[e], y.lanes[e], sum);
  }
  deltas[r] = sum;
  if (r < count) store(static_cast<float*>(a.workspace) + head * a.batch.q_rows + row + r, sum);
}

// dq's side. square: scores; dsquare: dout . value; on return the square is d(score) / scale.
template <typename Tiles>
IGF_DEVICE void differentiate_rows(float (&square)[Tiles::kRows][Tiles::kSquares],
                                   const float (&dsquare)[Tiles::kRows][Tiles::kSquares],
                                   const float (&lse)[Tiles::kRows], const float (&delta)[Tiles::kRows],
                                   const Sight& sight, const Dropout& dropout, philox::Key key, float scale,
                                   int64_t row, int head, int first_i, int tile_j, bool whole) {
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    uint32_t kept = 0;
    if (dropout.seed != nullptr) {
      const int first = tile_j / 64 * 64 + column_of_thread();
      kept = kept_of_four(dropout, key, row + i * kRowThreads, head, first) >> tile_j % 64 / 16;
    }
#pragma unroll
    for (int j = 0; j < Tiles::kSquares; ++j) {
      const int at_j = tile_j + column_of_thread() + j * kColumnThreads;
      const bool seen = whole || sight.sees(first_i + i * kRowThreads, at_j);
      const float p = exp_of_score(square[i][j], scale, lse[i]);
      const float factor = dropout.seed == nullptr ? 1.0f : kept_factor(dropout, kept, j);
      square[i][j] = seen ? p * (dsquare[i][j] * factor - delta[i]) : 0.0f;
    }
  }
}

template <typename Tiles>
IGF_KERNEL(kThreads, Tiles::kBlocks) attention_general_backward_queries(AttentionBackwardCall a, Dropout dropout,
                                                                        int64_t slots) {
  IGF_DYNAMIC_SHARED(bytes);
  const Memory<Tiles> memory(bytes);
  float *const queries = memory.own[0], *const douts = memory.own[1];
  float *const keys = memory.other[0], *const values = memory.other[1];

  const int head = static_cast<int>(block_x() % a.shape.heads);
  const int64_t kv_head = head / (a.shape.heads / a.shape.kv_heads);
  const int64_t slot = slots - 1 - block_x() / a.shape.heads;  // causal: the longest walks begin first
  const SequenceTile at = tile_of_slot<false>(a.batch, slot, Tiles::kOwn);
  const int first = at.tile * Tiles::kOwn;
  if (first >= at.q_count) return;
  const int count = at.q_count - first < Tiles::kOwn ? at.q_count - first : Tiles::kOwn;
  const int width = static_cast<int>(a.shape.width);
  const int64_t row = at.q_begin + first;
  const Sight sight = sight_of(a.shape, at);
  const int begin = sight.first_key(first) / Tiles::kOther * Tiles::kOther, end = sight.end_key(first + count);
  const philox::Key key = dropout.seed == nullptr ? philox::Key{} : philox::key_of(load(dropout.seed));

  load_tile<Tiles::kOwn, Tiles::kWidth>(queries, a.q, a.element, row, head, count, width);
  load_tile<Tiles::kOwn, Tiles::kWidth>(douts, a.dout, a.element, row, head, count, width);
  static_assert(Tiles::kOther >= Tiles::kOwn, "out stands where keys will");
  load_tile<Tiles::kOwn, Tiles::kWidth>(keys, a.out, a.element, row, head, count, width);
  block_barrier();  // dout and out are there
  find_delta<Tiles>(memory.square, a, douts, keys, row, head, count);
  block_barrier();  // every delta is there
  float lse[Tiles::kRows], delta[Tiles::kRows], dq[Tiles::kRows][Tiles::kColumns];
  set_zero(dq);
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) {
    const int r = row_of_thread() + i * kRowThreads;  // [0, kOwn)
    lse[i] = r < count ? load(a.lse + head * a.batch.q_rows + row + r) : 0.0f;
    delta[i] = memory.square[r];
  }
  for (int j = begin; j < end; j += Tiles::kOther) {
    const int there = at.k_count - j;  // keys of the tile, or more
    load_tile<Tiles::kOther, Tiles::kWidth>(keys, a.k, a.element, at.k_begin + j, kv_head, there, width);
    load_tile<Tiles::kOther, Tiles::kWidth>(values, a.v, a.element, at.k_begin + j, kv_head, there, width);
    block_barrier();  // keys and values are there
    float square[Tiles::kRows][Tiles::kSquares], dsquare[Tiles::kRows][Tiles::kSquares];
    multiply<Tiles>(square, queries, keys, width);
    multiply<Tiles>(dsquare, douts, values, width);
    differentiate_rows<Tiles>(square, dsquare, lse, delta, sight, dropout, key, a.shape.scale, row + row_of_thread(),
                              head, first + row_of_thread(), j, sight.all_see(first, first + count, j, j + Tiles::kOther));
    put_square<Tiles>(memory.square, square);
    warp_barrier();  // a row of the square is written and read by half a warp
    accumulate<Tiles>(dq, memory.square, keys);
    block_barrier();  // keys, values and the square have been read
  }
  float scales[Tiles::kRows];
#pragma unroll
  for (int i = 0; i < Tiles::kRows; ++i) scales[i] = a.shape.scale;
  put_rows<Tiles>(queries, dq, scales);
  block_barrier();  // every row of dq is there
  store_tile<Tiles::kWidth>(queries, a.dq, a.element, row, head, count, width);
}

// dk's and dv's side: the thread's rows are keys, its columns queries. square: scores; dsquare: value . dout. On return
// the square is the softmax after dropout, dsquare d(score) / scale.
template <typename Tiles>
IGF_DEVICE void differentiate_columns(float (&square)[Tiles::kRows][Tiles::kSquares],
                                      float (&dsquare)[Tiles::kRows][Tiles::kSquares],
                                      const float (&lse)[Tiles::kSquares], const float (&delta)[Tiles::kSquares],
                                      const Sight& sight, const Dropout& dropout, philox::Key key, float scale,
                                      int64_t row, int head, int first_i, int tile_j, bool whole) {
#pragma unroll
  for (int c = 0; c < Tiles::kSquares; ++c) {
    uint32_t kept[2] = {0, 0};  // of the keys in the lower and the upper half of every sixteen
    if (dropout.seed != nullptr) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int first = tile_j / 64 * 64 + row_of_thread() + half * kRowThreads;
        kept[half] = kept_of_four(dropout, key, row + c * kColumnThreads, head, first) >> tile_j % 64 / 16;
      }
    }
#pragma unroll
    for (int r = 0; r < Tiles::kRows; ++r) {
      const int at_j = tile_j + row_of_thread() + r * kRowThreads;
      const bool seen = whole || sight.sees(first_i + c * kColumnThreads, at_j);
      const float p = seen ? exp_of_score(square[r][c], scale, lse[c]) : 0.0f;
      const float factor = dropout.seed == nullptr ? 1.0f : kept_factor(dropout, kept[r % 2], r / 2);
      dsquare[r][c] = seen ? p * (dsquare[r][c] * factor - delta[c]) : 0.0f;
      square[r][c] = p * factor;
    }
  }
}

template <typename Tiles>
IGF_KERNEL(kThreads, Tiles::kBlocks) attention_general_backward_keys(AttentionBackwardCall a, Dropout dropout) {
  IGF_DYNAMIC_SHARED(bytes);
  const Memory<Tiles> memory(bytes);
  float *const keys = memory.own[0], *const values = memory.own[1];
  float *const queries = memory.other[0], *const douts = memory.other[1];

  const int64_t kv_head = block_x() % a.shape.kv_heads;
  const SequenceTile at = tile_of_slot<true>(a.batch, block_x() / a.shape.kv_heads, Tiles::kOwn);
  const int first = at.tile * Tiles::kOwn;
  if (first >= at.k_count) return;
  const int count = at.k_count - first < Tiles::kOwn ? at.k_count - first : Tiles::kOwn;
  const int width = static_cast<int>(a.shape.width), group = static_cast<int>(a.shape.heads / a.shape.kv_heads);
  const Sight sight = sight_of(a.shape, at);
  const int begin = sight.first_query(first) / Tiles::kOther * Tiles::kOther;
  const int end = sight.end_query(first + count, at.q_count);
  const philox::Key key = dropout.seed == nullptr ? philox::Key{} : philox::key_of(load(dropout.seed));
  const float* const deltas = static_cast<const float*>(a.workspace);

  load_tile<Tiles::kOwn, Tiles::kWidth>(keys, a.k, a.element, at.k_begin + first, kv_head, count, width);
  load_tile<Tiles::kOwn, Tiles::kWidth>(values, a.v, a.element, at.k_begin + first, kv_head, count, width);
  float dk[Tiles::kRows][Tiles::kColumns], dv[Tiles::kRows][Tiles::kColumns];
  set_zero(dk);
  set_zero(dv);
  for (int head = static_cast<int>(kv_head) * group; head < (kv_head + 1) * group; ++head) {
    for (int i = begin; i < end; i += Tiles::kOther) {
      const int there = at.q_count - i;  // queries of the tile, or more
      const int64_t row = at.q_begin + i, column_row = row + column_of_thread();
      load_tile<Tiles::kOther, Tiles::kWidth>(queries, a.q, a.element, row, head, there, width);
      load_tile<Tiles::kOther, Tiles::kWidth>(douts, a.dout, a.element, row, head, there, width);
      float lse[Tiles::kSquares], delta[Tiles::kSquares];
#pragma unroll
      for (int c = 0; c < Tiles::kSquares; ++c) {
        const bool inside = column_of_thread() + c * kColumnThreads < there;
        const int64_t place = head * a.batch.q_rows + column_row + c * kColumnThreads;
        lse[c] = inside ? load(a.lse + place) : INFINITY;  // a query beyond the end has p = 0
        delta[c] = inside ? load(deltas + place) : 0.0f;
      }
      block_barrier();  // keys, values, queries and dout are there
      float square[Tiles::kRows][Tiles::kSquares], dsquare[Tiles::kRows][Tiles::kSquares];
      multiply<Tiles>(square, keys, queries, width);
      multiply<Tiles>(dsquare, values, douts, width);
      differentiate_columns<Tiles>(square, dsquare, lse, delta, sight, dropout, key, a.shape.scale, column_row, head,
                                   i + column_of_thread(), first,
                                   sight.all_see(i, i + Tiles::kOther, first, first + Tiles::kOwn));
      put_square<Tiles>(memory.square, square);
      warp_barrier();  // a row of the softmax is written and read by half a warp
      accumulate<Tiles>(dv, memory.square, douts);
      warp_barrier();  // it has been read
      put_square<Tiles>(memory.square, dsquare);
      warp_barrier();  // a row of the other square is written and read by half a warp
      accumulate<Tiles>(dk, memory.square, queries);
      block_barrier();  // queries, dout and the square have been read
    }
  }
  float scales[Tiles::kRows], ones[Tiles::kRows];
#pragma unroll
  for (int r = 0; r < Tiles::kRows; ++r) scales[r] = a.shape.scale, ones[r] = 1.0f;
  if (begin >= end) block_barrier();  // keys and values have been written, and are written over
  put_rows<Tiles>(keys, dk, scales);
  put_rows<Tiles>(values, dv, ones);
  block_barrier();  // every row of dk and dv is there
  store_tile<Tiles::kWidth>(keys, a.dk, a.element, at.k_begin + first, kv_head, count, width);
  store_tile<Tiles::kWidth>(values, a.dv, a.element, at.k_begin + first, kv_head, count, width);
}

template <typename Tiles>
void backward(const AttentionBackwardCall& a, const DeviceContext& context) {
  const Dropout dropout = dropout_of(a.shape, a.dropout_seed);
  const int64_t shared = (2 * Tiles::kOwnFloats + 2 * Tiles::kOtherFloats + Tiles::kSquareFloats) * sizeof(float);
  const int64_t query_slots = tile_slots(a.batch, a.batch.q_rows, a.batch.q_length, Tiles::kOwn);
  const int64_t key_slots = tile_slots(a.batch, a.batch.k_rows, a.batch.k_length, Tiles::kOwn);
  if (query_slots > 0) {
    launch("attention_general_backward_queries", &attention_general_backward_queries<Tiles>,
           {query_slots * a.shape.heads, 1, kThreads, 1, shared}, context, a, dropout, query_slots);
  }
  if (key_slots > 0) {
    launch("attention_general_backward_keys", &attention_general_backward_keys<Tiles>,
           {key_slots * a.shape.kv_heads, 1, kThreads, 1, shared}, context, a, dropout);
  }
}

}  // namespace

int64_t attention_general_workspace(const AttentionBackwardCall& call, const DeviceContext&) {
  return call.shape.heads * call.batch.q_rows * static_cast<int64_t>(sizeof(float));  // delta
}

void attention_general_backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  if (call.shape.width <= 32) return backward<Tiling<32, 64, 64, 2>>(call, context);
  if (call.shape.width <= 64) return backward<Tiling<64, 64, 64, 2>>(call, context);
  if (call.shape.width <= 128) return backward<Tiling<128, 32, 32, 2>>(call, context);
  backward<Tiling<256, 16, 16, 2>>(call, context);
}

}  // namespace igf
