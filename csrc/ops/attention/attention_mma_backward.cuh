// The steps of attention's backward pass by mma.sync: where a tile lies, what a warp holds of it, the five products.
//
// A block's tile of keys has 128 rows; a warp owns slabs of 16. Rows stand in another order than keys: key_of_row().
// Scores are held transposed, keys by queries, so that a warp's probabilities and their gradients are, without moving,
// the left operands of dv += p^T dout and dk += ds^T q; only ds goes through shared memory, for dq += ds k.
#pragma once

#include "device/fast_math.cuh"
#include "ops/attention/attention_backward_rows.cuh"
#include "ops/attention/attention_dropout.cuh"
#include "ops/attention/attention_mma_tiles.cuh"

namespace igf::attention::mma_backward {

using namespace device;

constexpr int kKeys = 128;    // of a tile
constexpr int kQueries = 32;  // of a tile
constexpr int kSlab = 16;     // rows of keys in a fragment
constexpr int kStages = 2;

// The choices by width, and what follows from them.
//
//   width  warps  slabs a warp  blocks  dk, dv, v in registers  shared bytes
//    64      4         2          2          64 + 64 + 32          41,472
//    80      8         1          1          40 + 40 + 20          49,664
//    96      8         1          1          48 + 48 + 24          57,856
//   128      8         1          1          64 + 64 + 32          74,240
//
// Two slabs a warp read q and dout half as often from shared memory, but their sums fit at width 64 alone. v lives in
// registers: beside k in shared memory the tiles of width 128 would take more than the 99 KiB of sm_86, sm_89 and
// sm_120. Tiles of 128 keys halve dq's traffic against 64; tiles of 32 queries leave registers for all of this.
template <int kTileWidth>
struct Plan {
  static constexpr int kWidth = kTileWidth;
  static constexpr int kWarps = kWidth == 64 ? 4 : 8;
  static constexpr int kBlocks = kWidth == 64 ? 2 : 1;  // of a multiprocessor
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kSlabs = kKeys / kSlab / kWarps;
  static constexpr int kChunks = kWidth / kChunk;  // 16 bytes each, of a row
  static constexpr int kPairs = kChunks / 2;
  static constexpr int kColumnWarps = kWarps / 2;  // for dq: two warps by rows, so many by columns
  static constexpr int kColumnTurns = (kChunks + kColumnWarps - 1) / kColumnWarps;
  static constexpr int kKeyElements = kKeys * kWidth;
  static constexpr int kQueryElements = kQueries * kWidth;
  static constexpr int kScoreElements = kKeys * kQueries;
  static constexpr int kSharedBytes = (kKeyElements + 2 * kStages * kQueryElements + kScoreElements) * 2 +
                                      2 * kStages * kQueries * static_cast<int>(sizeof(float));
  static_assert(2 * kStages * kQueries == kKeys, "the stages together take a tile of keys, or of their gradients");
};

// The key that row r of a tile holds, both in [0, 128). Within 64, rows count keys in the order 0, 16, 32, 48, 1, 17,
// ...: so that the four keys that one draw of dropout serves are the rows of four neighbouring quads of lanes.
IGF_DEVICE int key_of_row(int r) { return r / 64 * 64 + r % 4 * 16 + r / 4 % 16; }

template <typename T, typename Plan>
struct Shared {
  unsigned char* base;

  IGF_DEVICE T* keys() const { return reinterpret_cast<T*>(base); }
  IGF_DEVICE T* stages() const { return keys() + Plan::kKeyElements; }  // q, dout, q, dout
  IGF_DEVICE T* queries(int stage) const { return stages() + 2 * stage * Plan::kQueryElements; }
  IGF_DEVICE T* douts(int stage) const { return queries(stage) + Plan::kQueryElements; }
  IGF_DEVICE T* dscores() const { return stages() + 2 * kStages * Plan::kQueryElements; }  // [keys, queries]
  IGF_DEVICE float* lse2(int stage) const {
    return reinterpret_cast<float*>(dscores() + Plan::kScoreElements) + 2 * stage * kQueries;
  }
  IGF_DEVICE float* delta(int stage) const { return lse2(stage) + kQueries; }
};

// What a warp holds throughout.
template <typename Plan>
struct Held {
  uint32_t v[Plan::kSlabs][Plan::kPairs][4];  // left operands
  float dk[Plan::kSlabs][Plan::kChunks][4];
  float dv[Plan::kSlabs][Plan::kChunks][4];
};

// Which tile of keys, in the launch's order of blocks, and of which key head.
struct Item {
  int64_t slot;
  int kv_head;
};

// Where a block is: its keys, and the tiles of queries that see them, [tile_begin, tile_end) of each head of the group.
struct Place {
  SequenceTile at;
  Sight sight;
  int first_key;  // of the sequence
  int kv_head;
  int group;      // query heads that share it
  int tile_begin, tile_end;
  int64_t slot_base;  // of the sequence's tile 0 of queries
};

IGF_DEVICE Place place_of(const AttentionBackwardCall& call, const Item& item) {
  Place place;
  const SequenceTile at = tile_of_slot<true>(call.batch, item.slot, kKeys);
  place.at = at;
  place.sight = sight_of(call.shape, at);
  place.first_key = at.tile * kKeys;
  place.kv_head = item.kv_head;
  place.group = static_cast<int>(call.shape.heads / call.shape.kv_heads);
  const int end_key = place.first_key + kKeys < at.k_count ? place.first_key + kKeys : at.k_count;
  const int first = place.sight.first_query(place.first_key), end = place.sight.end_query(end_key, at.q_count);
  place.tile_begin = first / kQueries;
  place.tile_end = end <= first ? place.tile_begin : (end + kQueries - 1) / kQueries;
  place.slot_base = call.batch.cu_seqlens != nullptr ? at.q_begin / kQueries + at.sequence
                                                     : at.sequence * ((call.batch.q_length + kQueries - 1) / kQueries);
  return place;
}

// One head and tile of queries; blocks go through the group's heads, in each from the last tile to the first.
struct Step {
  int head, tile;

  IGF_DEVICE Step next(const Place& place) const {
    return tile > place.tile_begin ? Step{head, tile - 1} : Step{head + 1, place.tile_end - 1};
  }
};

// The thread's number, brought by a shuffle: so to the compiler it is a new one, and what is derived from it is made
// where it is used, not kept through the loop over the steps in registers that there are not.
IGF_DEVICE int thread_now(IGF_ONLY_SITE_PARAMETER) { return shuffle(thread_x(), lane_index(), kAllLanes IGF_SITE); }

// Visits a thread's chunks of a tile of kRows rows: visit(row, chunk, place). Neighbouring threads take neighbouring
// chunks, so warps move whole rows and meet no bank twice. Where a row's threads divide the block, a thread keeps to
// one chunk, and its places differ by constants.
template <typename Plan, int kRows, typename Visit>
IGF_DEVICE void for_each_own_chunk(int thread, const Visit& visit) {
  using Layout = TileLayout<Plan::kWidth>;
  constexpr int kStep = Plan::kThreads / Plan::kChunks;
  if constexpr (Plan::kThreads % Plan::kChunks == 0 && kStep % 8 == 0) {
    const int row = thread / Plan::kChunks, chunk = thread % Plan::kChunks, place = Layout::place(row, chunk);
#pragma unroll
    for (int i = 0; i < kRows; i += kStep) visit(row + i, chunk, place + i * Plan::kWidth);
  } else {
#pragma unroll
    for (int i = thread; i < kRows * Plan::kChunks; i += Plan::kThreads) {
      visit(i / Plan::kChunks, i % Plan::kChunks, Layout::place(i / Plan::kChunks, i % Plan::kChunks));
    }
  }
}

// Starts the copy of rows into a tile: row r of kRows comes from row source(r) of the `count` that begin at `row`, or
// becomes 0.
template <typename Plan, int kRows, typename T, typename Source>
IGF_DEVICE void copy_rows_async(T* tile, const AttentionView<const void>& from, int64_t row, int64_t head, int count,
                                const Source& source IGF_SITE_PARAMETER) {
  const T* const rows = backward_rows::row_of<const T>(from, row, head);
  for_each_own_chunk<Plan, kRows>(thread_x(), [&](int r, int chunk, int place) {
    const int inside = source(r) < count ? source(r) : 0;  // an address of the tensor, though nothing is read there
    ptx::cp_async_zero_fill<16>(tile + place, rows + inside * from.row_stride + chunk * kChunk,
                                source(r) < count ? 16 : 0 IGF_SITE);
  });
}

template <typename T, typename Plan>
IGF_DEVICE void copy_keys_async(T* tile, const AttentionView<const void>& from,
                                const Place& place IGF_SITE_PARAMETER) {
  copy_rows_async<Plan, kKeys>(tile, from, place.at.k_begin + place.first_key, place.kv_head,
                               place.at.k_count - place.first_key, [](int r) { return key_of_row(r); } IGF_SITE);
}

// Starts the copy of a step's q, dout, lse2 and delta into a stage, as one group.
template <typename T, typename Plan>
IGF_DEVICE void copy_step_async(const Shared<T, Plan>& shared, int stage, const AttentionBackwardCall& call,
                                const BackwardWorkspace& work, const Place& place, const Step& step) {
  const int first = step.tile * kQueries, count = place.at.q_count - first;
  const auto same = [](int r) { return r; };
  copy_rows_async<Plan, kQueries>(shared.queries(stage), call.q, place.at.q_begin + first, step.head, count, same);
  copy_rows_async<Plan, kQueries>(shared.douts(stage), call.dout, place.at.q_begin + first, step.head, count, same);
  constexpr int kQuads = kQueries / 4;  // of floats, 16 bytes
  const int piece = thread_x() % kQuads * 4;
  const int64_t rows = (step.head * work.slots + place.slot_base + step.tile) * kQueries;
  if (thread_x() < kQuads) {
    ptx::cp_async<16>(shared.lse2(stage) + piece, work.lse2 + rows + piece);
  } else if (thread_x() < 2 * kQuads) {
    ptx::cp_async<16>(shared.delta(stage) + piece, work.delta + rows + piece);
  }
  ptx::cp_async_commit();
}

// Bit 16 slab + 4 (2 e + half) + n: whether dropout keeps the lane's element (row half, column e) of the warp's slab
// and of the n-th 8 queries of the step. The four quads whose rows one draw serves share the draws: the n-th of them
// draws for the n-th 8 queries.
template <typename Plan>
IGF_DEVICE uint32_t draw_kept(const Dropout& dropout, const Place& place, const Step& step) {
  const philox::Key key = philox::key_of(load(dropout.seed));
  const int lane = lane_index(), quad = lane / 4, among = quad % 4;
  uint32_t drawn = 0;
#pragma unroll
  for (int s = 0; s < Plan::kSlabs; ++s) {
    const int row = (thread_x() / kWarp * Plan::kSlabs + s) * kSlab + quad / 4 * 4;  // of the first of the four quads
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {  // 2 e + half
      const int query = step.tile * kQueries + among * 8 + lane % 4 * 2 + i / 2;
      const uint32_t four = kept_of_four(dropout, key, place.at.q_begin + query, step.head,
                                         place.first_key + key_of_row(row + i % 2 * 8));
      drawn |= four << (16 * s + 4 * i);
    }
  }
  uint32_t kept = 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const uint32_t theirs = shuffle(drawn, (quad - among + n) * 4 + lane % 4);
    kept |= (theirs >> among & 0x11111111u) << n;
  }
  return kept;
}

struct Scoring {
  float scale_log2;
  bool dropping;
  float keep_factor;
  bool masked;    // some query of the step does not see some key of the tile
  uint32_t kept;  // draw_kept()
};

// Of one slab and 16 queries, the `half_tile`-th of the step: scores become probabilities p (as dropout leaves them),
// and dp becomes ds = p (dp - delta). What a query does not see is chosen to be 0, whatever it was.
IGF_DEVICE void score_gradients(float (&p)[2][4], float (&dp)[2][4], const Scoring& scoring, const float* lse2,
                                const float* delta, const Place& place, int first_query, int half_tile, int slab,
                                int row) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    using Two = Vector<float, 2>;
    const int column = 16 * half_tile + 8 * n + sum_column();  // of the step's queries
    const Two log_sums = load(reinterpret_cast<const Two*>(lse2 + column));
    const Two deltas = load(reinterpret_cast<const Two*>(delta + column));
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // 2 half + e
      const int e = i % 2, half = i / 2;
      float probability = fast_exp2(p[n][i] * scoring.scale_log2 - log_sums.lanes[e]);
      float gradient = dp[n][i];
      if (scoring.dropping) {
        const bool keep = (scoring.kept >> (16 * slab + 4 * (2 * e + half) + 2 * half_tile + n) & 1) != 0;
        gradient = keep ? gradient * scoring.keep_factor : 0.0f;
        p[n][i] = keep ? probability * scoring.keep_factor : 0.0f;
      } else {
        p[n][i] = probability;
      }
      dp[n][i] = probability * (gradient - deltas.lanes[e]);
    }
  }
  if (!scoring.masked) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = place.first_key + key_of_row(row + half * 8);
    const int begin = place.sight.first_query(key);
    const int end = key < place.at.k_count ? place.sight.end_query(key + 1, place.at.q_count) : 0;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int query = first_query + 16 * half_tile + 8 * n + sum_column() + e;
        const bool seen = query >= begin && query < end;
        p[n][2 * half + e] = seen ? p[n][2 * half + e] : 0.0f;
        dp[n][2 * half + e] = seen ? dp[n][2 * half + e] : 0.0f;
      }
    }
  }
}

// sums [slabs x 16 keys, width] += a [slabs x 16 keys, 16 queries] tile [16 queries, width].
template <typename T, typename Plan>
IGF_DEVICE void add_products(float (&sums)[Plan::kSlabs][Plan::kChunks][4], const uint32_t (&a)[Plan::kSlabs][4],
                             const T* tile IGF_SITE_PARAMETER) {
#pragma unroll
  for (int pair = 0; pair < Plan::kPairs; ++pair) {
    uint32_t b[2][2];
    load_b_columns<Plan::kWidth>(b, tile, pair IGF_SITE);
#pragma unroll
    for (int s = 0; s < Plan::kSlabs; ++s) multiply<T>(sums[s][2 * pair], sums[s][2 * pair + 1], a[s], b IGF_SITE);
  }
}

// Four of the five products for 16 queries of the stage and the warp's slabs; leaves ds in shared memory for the fifth.
template <typename T, typename Plan>
IGF_DEVICE void half_step(Held<Plan>& held, const Shared<T, Plan>& shared, int stage, const Scoring& scoring,
                          const Place& place, int first_query, int half_tile) {
  const int thread = thread_now(), lane = thread % kWarp;
  const int first_row = thread / kWarp * Plan::kSlabs * kSlab;  // of the warp's, [0, 128)
  const T* const queries = shared.queries(stage) + 16 * half_tile * Plan::kWidth;
  const T* const douts = shared.douts(stage) + 16 * half_tile * Plan::kWidth;
  float p[Plan::kSlabs][2][4] = {}, dp[Plan::kSlabs][2][4] = {};
#pragma unroll
  for (int pair = 0; pair < Plan::kPairs; ++pair) {
    uint32_t q[2][2];
    load_b_rows<Plan::kWidth>(q, queries, pair);
#pragma unroll
    for (int s = 0; s < Plan::kSlabs; ++s) {
      uint32_t k[4];
      load_a<Plan::kWidth>(k, shared.keys() + (first_row + s * kSlab) * Plan::kWidth, pair);
      multiply<T>(p[s][0], p[s][1], k, q);
    }
  }
#pragma unroll
  for (int pair = 0; pair < Plan::kPairs; ++pair) {
    uint32_t dout[2][2];
    load_b_rows<Plan::kWidth>(dout, douts, pair);
#pragma unroll
    for (int s = 0; s < Plan::kSlabs; ++s) multiply<T>(dp[s][0], dp[s][1], held.v[s][pair], dout);
  }
  uint32_t left[Plan::kSlabs][4];
#pragma unroll
  for (int s = 0; s < Plan::kSlabs; ++s) {
    const int row = first_row + s * kSlab + lane / 4;
    score_gradients(p[s], dp[s], scoring, shared.lse2(stage), shared.delta(stage), place, first_query, half_tile, s,
                    row);
    a_of_sums<T>(left[s], p[s][0], p[s][1]);
  }
  add_products<T, Plan>(held.dv, left, douts);
#pragma unroll
  for (int s = 0; s < Plan::kSlabs; ++s) {
    a_of_sums<T>(left[s], dp[s][0], dp[s][1]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // 2 n + half: the same pairs, [keys, queries]
      const int row = first_row + s * kSlab + sum_row(i % 2);
      const int place_of_pair = TileLayout<kQueries>::place(row, 2 * half_tile + i / 2) + sum_column();
      store(reinterpret_cast<uint32_t*>(shared.dscores() + place_of_pair), left[s][i]);
    }
  }
  add_products<T, Plan>(held.dk, left, queries);
}

// The fifth product: ds k of all keys, 16 queries by every kColumnWarps-th 8 columns a warp.
template <typename Plan>
struct DqPart {
  int rows, columns;  // which 16 queries, [0, 2); the first of the warp's chunks, [0, kColumnWarps)
  float sums[Plan::kColumnTurns][4];

  IGF_DEVICE int chunk(int turn) const { return columns + turn * Plan::kColumnWarps; }
  IGF_DEVICE bool has(int turn) const { return Plan::kChunks % Plan::kColumnWarps == 0 || chunk(turn) < Plan::kChunks; }
};

template <typename T, typename Plan>
IGF_DEVICE void multiply_dq(DqPart<Plan>& part, const Shared<T, Plan>& shared) {
  using Layout = TileLayout<Plan::kWidth>;
  const int warp = thread_x() / kWarp;
  part.rows = warp % 2;
  part.columns = warp / 2;
#pragma unroll
  for (int turn = 0; turn < Plan::kColumnTurns; ++turn) {
#pragma unroll
    for (int i = 0; i < 4; ++i) part.sums[turn][i] = 0;
  }
#pragma unroll
  for (int row = 0; row < kKeys; row += 32) {
    uint32_t a[2][4];
    load_a_columns<kQueries>(a[0], shared.dscores() + row * kQueries, part.rows);
    load_a_columns<kQueries>(a[1], shared.dscores() + (row + 16) * kQueries, part.rows);
#pragma unroll
    for (int turn = 0; turn < Plan::kColumnTurns; ++turn) {
      if (!part.has(turn)) continue;
      uint32_t b[4];  // 32 rows of one chunk
      ptx::ldmatrix<4, true>(b, shared.keys() + row * Plan::kWidth + Layout::place(lane_index(), part.chunk(turn)));
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
      ptx::mma_m16n8k16<T>(part.sums[turn], a[0], first);
      ptx::mma_m16n8k16<T>(part.sums[turn], a[1], second);
    }
  }
}

// Adds it to the tile's sums, [row group][chunk][4][32].
template <typename Plan>
IGF_DEVICE void add_dq(float* tile_sums, const DqPart<Plan>& part) {
#pragma unroll
  for (int turn = 0; turn < Plan::kColumnTurns; ++turn) {
    if (!part.has(turn)) continue;
    float* const group = tile_sums + (part.rows * Plan::kChunks + part.chunk(turn)) * (16 * kChunk) + lane_index();
#pragma unroll
    for (int i = 0; i < 4; ++i) atomic_add(group + i * kWarp, part.sums[turn][i]);
  }
}

// The warp's slabs of dk or dv, times a factor, into a tile of 128 rows.
template <typename T, typename Plan>
IGF_DEVICE void stage_gradients(T* tile, const float (&sums)[Plan::kSlabs][Plan::kChunks][4],
                                float factor IGF_SITE_PARAMETER) {
#pragma unroll
  for (int s = 0; s < Plan::kSlabs; ++s) {
#pragma unroll
    for (int chunk = 0; chunk < Plan::kChunks; ++chunk) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (thread_x() / kWarp * Plan::kSlabs + s) * kSlab + sum_row(half);
        store_sums<Plan::kWidth>(tile, row, chunk, factor * sums[s][chunk][2 * half],
                                 factor * sums[s][chunk][2 * half + 1] IGF_SITE);
      }
    }
  }
}

// A tile of 128 rows to where its keys stand.
template <typename T, typename Plan>
IGF_DEVICE void write_gradients(const AttentionView<void>& to, const T* tile,
                                const Place& place IGF_SITE_PARAMETER) {
  T* const rows = backward_rows::row_of<T>(to, place.at.k_begin + place.first_key, place.kv_head);
  for_each_own_chunk<Plan, kKeys>(thread_now(IGF_ONLY_SITE), [&](int r, int chunk, int at) {
    const int key = key_of_row(r);
    if (place.first_key + key >= place.at.k_count) return;
    const Packed<T> elements = load(reinterpret_cast<const Packed<T>*>(tile + at) IGF_SITE);
    store(reinterpret_cast<Packed<T>*>(rows + key * to.row_stride) + chunk, elements IGF_SITE);
  });
}

}  // namespace igf::attention::mma_backward
