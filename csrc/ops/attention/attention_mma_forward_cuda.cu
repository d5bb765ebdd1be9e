// attention's forward pass by mma.sync: for sm_80 and later, bf16 and f16, widths 64, 80, 96 and 128.
//
// A block has 128 queries of one head and walks over the tiles of keys that some of them see. Its 4 warps have 32
// queries each: scores by one product, the softmax so far in registers, out += probabilities times values by another,
// whose first factor is the first one's result where it stands. Tiles come by cp.async: keys while values are read, and
// values while keys are. No tile outside of the band is brought, and only tiles on its edge are masked.
//
// Work     4 width multiply-adds a query and key of a tile, half of them in 16-bit products; one exp2 a query and key.
// Memory   of each head: q in, out and lse out once; k and v once for every tile of 128 queries that sees them, in
//          whole tiles. A packed batch's bounds are read by every warp, some log2(sequences) of them, dropout's seed by
//          a warp for each tile.
// Numbers  scores, softmax and sums in f32; exp2, its argument scale * log2(e) * score - top by one rounding.
//          Probabilities are rounded to T before they meet the values, their sum is taken before that. Equal bits on
//          repeat, whatever the order of blocks.
// Limits   rows and heads on 16 bytes; up to 65535 key heads. Queries, keys and values of other sequences are never
//          multiplied, so their NaN stay with them. A warp reads 16 KiB of fragments for 64 keys of width 64 (24 KiB
//          for 32 of width 128) and makes 128 products m16n8k16 of them: sm_80's shared memory takes 50 % (75 %) of its
//          tensor cores' time for that, so these bound it, beside exp2 and what else the softmax takes, which the other
//          block's products cover. Where mma.sync is twice as fast (sm_90), shared memory bounds it. Not measured.
// Source   Dao 2023, arXiv:2307.08691, algorithm 1 (the split of a block's work over queries); Milakov and Gimelshein
//          2018, arXiv:1805.02867 (the softmax in one pass).
#include <cmath>

#include "device/fast_math.cuh"
#include "device/launch.cuh"
#include "device/math.h"
#include "device/vectors.cuh"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/attention_dropout.cuh"
#include "ops/attention/attention_mma_tiles.cuh"
#include "ops/attention/attention_sequences.cuh"

namespace igf {
namespace {

using namespace device;
using namespace attention;

constexpr int kThreads = 128;
constexpr int kWarpQueries = 32;                            // two fragments of 16 rows: each key is read once for both
constexpr int kQueries = kThreads / kWarp * kWarpQueries;  // of a block
constexpr int kParts = kWarpQueries / 16;
constexpr int kRows = 2 * kParts;  // of sums, in one thread: row r is half r % 2 of part r / 2

// Tiles by width. Two blocks, 8 warps, share a multiprocessor on every target: three would leave 168 registers a
// thread, less than sums and scores take. Shared memory is chosen so that two fit where a multiprocessor has the least,
// 100 KiB (sm_86, sm_89, sm_120; sm_80 164, sm_90 and sm_100 228), a block taking 2 KiB besides its tiles:
//
//   width  queries  keys and values          bytes   registers: sums, scores, queries, in all (sm_80, 90a, 100a, 120)
//    64    16 KiB   2 stages of 2 x  8 KiB   48 KiB    64  64  32   217  219  240  238
//    80    20 KiB   1 stage  of 2 x 10 KiB   40 KiB    80  64   8   210  216  210  214
//    96    24 KiB   1 stage  of 2 x 12 KiB   48 KiB    96  64   8   232  236  222  224
//   128    32 KiB   1 stage  of 2 x  8 KiB   48 KiB   128  32   8   238  240  244  242
//
// Tiles are of 64 keys, those of one draw of dropout; at width 128 there are registers for the scores of 32 only. At
// width 64 there are some for the queries too, which otherwise are read again for every tile.
template <int kWidth>
struct Choice {
  static constexpr int kKeys = kWidth < 128 ? 64 : 32;
  static constexpr int kStages = kWidth == 64 ? 2 : 1;
  static constexpr bool kHolds = kWidth == 64;  // the queries
};

template <typename T, int kTileWidth>
struct ForwardTiles {
  static constexpr int kWidth = kTileWidth;
  static constexpr int kKeys = Choice<kWidth>::kKeys;
  static constexpr int kStages = Choice<kWidth>::kStages;  // each a tile of keys and the same of values
  static constexpr int kTile = kKeys * kWidth;             // elements
  static constexpr int kUnderWay = 2 * kStages - 2;        // groups of copies that may be when a tile is read
  static constexpr int kBytes = (kQueries * kWidth + 2 * kStages * kTile) * static_cast<int>(sizeof(T));
  static constexpr bool kHolds = Choice<kWidth>::kHolds;
  using Queries = uint32_t[kHolds ? kWidth / 16 : 1][kParts][4];  // by 16 columns: all, or those in use
  using Scores = float[kParts][kKeys / 8][4];
  using Probabilities = uint32_t[kParts][kKeys / 16][4];
  using Sums = float[kParts][kWidth / 8][4];
};

IGF_DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// What the launch works out once for all blocks.
struct Derived {
  int slots;             // of tiles of queries
  int group;             // query heads of a key head
  float exponent_scale;  // scale * log2(e): softmax in powers of two
  Dropout dropout;
};

// A block's place in the grid: y is the key head, x first the query heads that read it, which so run together, then
// the tiles of queries. The last tiles of a sequence see the most keys and go first: the launch ends with short ones.
IGF_DEVICE int kv_head_of_block() { return static_cast<int>(block_y()); }
IGF_DEVICE int head_of_block(const Derived& derived) {
  return kv_head_of_block() * derived.group + static_cast<int>(block_x()) % derived.group;
}
IGF_DEVICE int slot_of_block(const Derived& derived) {
  return derived.slots - 1 - static_cast<int>(block_x()) / derived.group;
}

// One tile of queries, and the keys that some of them see: [first_key, end_key).
struct BlockWork {
  Sight sight;
  int q_begin, k_begin;  // where the sequence's rows begin
  int first_query, end_query;
  int first_key, end_key;  // the first is a multiple of the tile's keys
};

template <int kKeys>
IGF_DEVICE BlockWork block_work(const AttentionForwardCall& a, const Derived& derived) {
  const SequenceTile at = tile_of_slot<false>(a.batch, slot_of_block(derived), kQueries);
  const Sight sight = sight_of(a.shape, at);
  const int first_query = at.tile * kQueries;
  const int end_query = smaller(first_query + kQueries, at.q_count);
  return {sight,
          static_cast<int>(at.q_begin),
          static_cast<int>(at.k_begin),
          first_query,
          end_query,
          sight.first_key(first_query) / kKeys * kKeys,
          sight.end_key(end_query)};
}

// A warp's queries of the sequence; none when end <= first.
struct WarpQueries {
  int first, end;
};

IGF_DEVICE WarpQueries warp_queries(const BlockWork& work) {
  const int first = work.first_query + thread_x() / kWarp * kWarpQueries;
  return {first, smaller(first + kWarpQueries, work.end_query)};
}

// Whether some of the queries may see some of the keys [first_key, end_key).
IGF_DEVICE bool any_sees(const Sight& sight, const WarpQueries& queries, int first_key, int end_key) {
  return queries.first < queries.end && first_key < sight.end_key(queries.end) &&
         end_key > sight.first_key(queries.first);
}

// Scores may pass the top by this much, in powers of two, before it moves: all that was summed would have to be
// multiplied, and 2^8 is far from the end of f16, let alone of the others. Results are as exact with any top.
constexpr float kHeadroom = 8.0f;

// The softmax of the thread's rows so far, in powers of two. `sum` is the lane's own part of the row's sum.
struct Softmax {
  float top[kRows];  // near the largest of scores * exponent_scale; -infinity: nothing seen
  float sum[kRows];
};

// The tiles of keys and values are copied and read in turns, K 0, V 0, K 1, V 1, ...: while one is read, the next
// 2 kStages - 1 are on their way. Where the tile that begins at `key` stands:
template <typename Tiles, typename T>
IGF_DEVICE T* keys_at(T* stages, int key) {
  return stages + key / Tiles::kKeys % Tiles::kStages * 2 * Tiles::kTile;
}
template <typename Tiles, typename T>
IGF_DEVICE T* values_at(T* stages, int key) {
  return keys_at<Tiles>(stages, key) + Tiles::kTile;
}

// Starts the copy of the tile of k or v that begins at `key`, if there is one. It is a group of its own in any case, so
// that waiting for all but the last kUnderWay groups always means the tile that is read next.
template <typename Tiles, typename T>
IGF_DEVICE void copy_tile(T* tile, const AttentionView<const void>& from, int key,
                          const BlockWork& work IGF_SITE_PARAMETER) {
  if (key < work.end_key) {
    copy_tile_async<Tiles::kWidth, kThreads, Tiles::kKeys>(tile, from, work.k_begin + key, kv_head_of_block(),
                                                           work.sight.k_count - key IGF_SITE);
  }
  ptx::cp_async_commit(IGF_ONLY_SITE);
}

// 16 columns of the warp's queries.
template <int kWidth, typename T>
IGF_DEVICE void load_queries(uint32_t (&a)[kParts][4], const T* queries, int pair) {
#pragma unroll
  for (int part = 0; part < kParts; ++part) load_a<kWidth>(a[part], queries + 16 * part * kWidth, pair);
}

// scores = queries of the warp times a tile of keys.
template <typename T, typename Tiles>
IGF_DEVICE void multiply_keys(typename Tiles::Scores& scores, typename Tiles::Queries& a, const T* queries,
                              const T* keys) {
  constexpr int kWidth = Tiles::kWidth;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int group = 0; group < Tiles::kKeys / 8; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[part][group][i] = 0.0f;
    }
  }
#pragma unroll
  for (int pair = 0; pair < kWidth / 16; ++pair) {
    const int at = Tiles::kHolds ? pair : 0;
    if (!Tiles::kHolds) load_queries<kWidth>(a[at], queries, pair);
#pragma unroll
    for (int n = 0; n < Tiles::kKeys / 16; ++n) {
      uint32_t b[2][2];
      load_b_rows<kWidth>(b, keys + 16 * n * kWidth, pair);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        multiply<T>(scores[part][2 * n], scores[part][2 * n + 1], a[at][part], b);
      }
    }
  }
}

// The probabilities rounded to T, as the first factor of the product with the values.
template <typename T, typename Tiles>
IGF_DEVICE void round_probabilities(typename Tiles::Probabilities& rounded,
                                    const typename Tiles::Scores& probabilities) {
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int n = 0; n < Tiles::kKeys / 16; ++n) {
      a_of_sums<T>(rounded[part][n], probabilities[part][2 * n], probabilities[part][2 * n + 1]);
    }
  }
}

// out = out * factors + probabilities times a tile of values.
template <typename T, typename Tiles>
IGF_DEVICE void multiply_values(typename Tiles::Sums& out, const float (&factors)[kRows],
                                const typename Tiles::Probabilities& probabilities,
                                const T* values) {
  constexpr int kWidth = Tiles::kWidth;
  bool moved = false;  // some row's top: seldom after the first tile
#pragma unroll
  for (int row = 0; row < kRows; ++row) moved = moved || factors[row] != 1.0f;
  if (any_lane(moved)) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int group = 0; group < kWidth / 8; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[part][group][i] *= factors[2 * part + i / 2];
      }
    }
  }
#pragma unroll
  for (int n = 0; n < Tiles::kKeys / 16; ++n) {
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) {
      uint32_t b[2][2];
      load_b_columns<kWidth>(b, values + 16 * n * kWidth, pair);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        multiply<T>(out[part][2 * pair], out[part][2 * pair + 1], probabilities[part][n], b);
      }
    }
  }
}

// Scores of keys that a query does not see become -infinity, whatever they are.
template <int kGroups>
IGF_DEVICE void mask_scores(float (&scores)[kParts][kGroups][4], const Sight& sight, int first_query, int first_key) {
  const Sight elements = sight.from(first_key + sum_column());  // key 8 group + e is element e of a group
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int query = first_query + row / 2 * 16 + sum_row(row % 2);
    const int begin = elements.first_key(query), end = elements.end_key(query + 1);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& score = scores[row / 2][group][2 * (row % 2) + e];
        score = 8 * group + e >= begin && 8 * group + e < end ? score : -math::kInfinity;
      }
    }
  }
}

// Folds a tile of scores into the softmax and turns them into probabilities as seen from its top. Where that has moved,
// what was summed must be multiplied by factors, a number a row; elsewhere they are 1.
template <typename Tiles>
IGF_DEVICE void fold_scores(typename Tiles::Scores& scores, Softmax& softmax, float (&factors)[kRows],
                            float exponent_scale) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int part = row / 2, half = row % 2;
    float most = scores[part][0][2 * half];
#pragma unroll
    for (int group = 0; group < Tiles::kKeys / 8; ++group) {
      most = fmaxf(most, fmaxf(scores[part][group][2 * half], scores[part][group][2 * half + 1]));
    }
    most = fmaxf(most, shuffle_xor(most, 1));
    most = fmaxf(most, shuffle_xor(most, 2));  // the four lanes of the row
    const float reached = most * exponent_scale;
    const float top = reached > softmax.top[row] + kHeadroom ? reached : softmax.top[row];
    const float base = top == -math::kInfinity ? 0.0f : top;  // of a row that has seen nothing, all powers are 0
    factors[row] = fast_exp2(softmax.top[row] - base);
    softmax.top[row] = top;
    float sum = softmax.sum[row] * factors[row];
#pragma unroll
    for (int group = 0; group < Tiles::kKeys / 8; ++group) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& score = scores[part][group][2 * half + e];
        score = fast_exp2(fmaf(score, exponent_scale, -base));
        sum += score;
      }
    }
    softmax.sum[row] = sum;
  }
}

// Sets the probabilities that dropout takes to 0. A draw decides on four keys 16 apart.
template <int kSixteens>
IGF_DEVICE void drop_probabilities(uint32_t (&probabilities)[kParts][kSixteens][4], const Dropout& dropout,
                                   int first_row, int head, int first_key) {
  const philox::Key key = philox::key_of(load(dropout.seed));
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    uint32_t kept = 0;  // bit 4 sixteen + 2 right + e, of element e in the left or right 8 of 16 keys
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {  // 2 right + e
      const int first = first_key / 64 * 64 + sum_column() + i / 2 * 8 + i % 2;
      const uint32_t four =
          kept_of_four(dropout, key, first_row + row / 2 * 16 + sum_row(row % 2), head, first) >> first_key % 64 / 16;
#pragma unroll
      for (int sixteen = 0; sixteen < kSixteens; ++sixteen) kept |= (four >> sixteen & 1u) << (4 * sixteen + i);
    }
#pragma unroll
    for (int sixteen = 0; sixteen < kSixteens; ++sixteen) {
#pragma unroll
      for (int right = 0; right < 2; ++right) {
        const uint32_t pair = kept >> (4 * sixteen + 2 * right);  // bits 0 and 1
        probabilities[row / 2][sixteen][2 * right + row % 2] &= (pair & 1u) * 0xffffu | (pair >> 1 & 1u) * 0xffff0000u;
      }
    }
  }
}

// The sum of a row's four lanes, in each of them.
IGF_DEVICE float sum_of_row(float sum IGF_SITE_PARAMETER) {
  sum += shuffle_xor(sum, 1, kAllLanes IGF_SITE);
  return sum + shuffle_xor(sum, 2, kAllLanes IGF_SITE);
}

// Divides the warp's sums by the softmax's, and stages its rows of out where its queries were; writes their lse.
template <typename T, typename Tiles>
IGF_DEVICE void stage_rows(T* staged, const AttentionForwardCall& a, const Derived& derived,
                           const BlockWork& work, const WarpQueries& warp, const typename Tiles::Sums& out,
                           const Softmax& softmax) {
  constexpr int kWidth = Tiles::kWidth;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int r = row / 2 * 16 + sum_row(row % 2);  // [0, kWarpQueries)
    const float sum = sum_of_row(softmax.sum[row]);
    // A row that saw no key may have met NaN in values times 0: it is 0 whatever they are.
    const bool seen = sum != 0.0f;
    const float by = derived.dropout.factor / sum;
#pragma unroll
    for (int group = 0; group < kWidth / 8; ++group) {
      const float low = out[row / 2][group][2 * (row % 2)] * by, high = out[row / 2][group][2 * (row % 2) + 1] * by;
      store_sums<kWidth>(staged, r, group, seen ? low : 0.0f, seen ? high : 0.0f);
    }
    if (lane_index() % 4 == 0 && warp.first + r < warp.end) {
      const float lse = seen ? fmaf(softmax.top[row], kLn2, math::log(sum)) : -math::kInfinity;
      store(a.lse + head_of_block(derived) * a.batch.q_rows + work.q_begin + warp.first + r, lse);
    }
  }
}

// Writes the block's staged rows, 16 bytes a thread at a time.
template <int kWidth, typename T>
IGF_DEVICE void write_rows(const AttentionForwardCall& a, const Derived& derived, const BlockWork& work,
                           const T* staged) {
  T* const rows = static_cast<T*>(a.out.data) + (work.q_begin + work.first_query) * a.out.row_stride +
                  head_of_block(derived) * a.out.head_stride;
  const int count = work.end_query - work.first_query;
  for_each_chunk<kWidth, kThreads, kQueries>(thread_x(), [&](int row, int place, int column) {
    if (row >= count) return;
    const Packed<T> chunk = load(reinterpret_cast<const Packed<T>*>(staged + place));
    store(reinterpret_cast<Packed<T>*>(rows + row * a.out.row_stride + column), chunk);
  });
}

template <typename T, int kWidth>
IGF_KERNEL(kThreads, 2)
attention_mma_forward_tile(AttentionForwardCall a, Derived derived) {
  using Tiles = ForwardTiles<T, kWidth>;
  constexpr int kKeys = Tiles::kKeys;
  IGF_DYNAMIC_SHARED(shared);
  T* const queries = reinterpret_cast<T*>(shared);
  T* const own_queries = queries + thread_x() / kWarp * kWarpQueries * kWidth;  // read and overwritten by one warp
  const BlockWork work = block_work<kKeys>(a, derived);
  if (work.first_query >= work.end_query) return;  // the slot has no tile
  const WarpQueries warp = warp_queries(work);
  T* const stages = queries + kQueries * kWidth;
  typename Tiles::Sums out = {};
  Softmax softmax;
#pragma unroll
  for (int row = 0; row < kRows; ++row) softmax.top[row] = -math::kInfinity, softmax.sum[row] = 0.0f;

  if (work.first_key < work.end_key) {
    copy_tile_async<kWidth, kThreads, kQueries>(queries, a.q, work.q_begin + work.first_query, head_of_block(derived),
                                                work.end_query - work.first_query);
  }
#pragma unroll
  for (int stage = 0; stage < Tiles::kStages; ++stage) {
    const int key = work.first_key + stage * kKeys;
    copy_tile<Tiles>(keys_at<Tiles>(stages, key), a.k, key, work);  // the first group has the queries too
    if (stage + 1 < Tiles::kStages) copy_tile<Tiles>(values_at<Tiles>(stages, key), a.v, key, work);
  }
  typename Tiles::Queries held;
  if (Tiles::kHolds && work.first_key < work.end_key) {
    ptx::cp_async_wait<Tiles::kUnderWay>();
    block_barrier();  // the queries have arrived
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) load_queries<kWidth>(held[pair], own_queries, pair);
  }
#pragma unroll 1
  for (int key = work.first_key; key < work.end_key; key += kKeys) {
    const bool sees = any_sees(work.sight, warp, key, key + kKeys);
    typename Tiles::Probabilities probabilities;
    float factors[kRows];
    ptx::cp_async_wait<Tiles::kUnderWay>();
    block_barrier();  // the keys have arrived, every thread's part; the values before them have been read
    const int next_values = key + (Tiles::kStages - 1) * kKeys, next_keys = key + Tiles::kStages * kKeys;
    copy_tile<Tiles>(values_at<Tiles>(stages, next_values), a.v, next_values, work);
    if (sees) {
      typename Tiles::Scores scores;
      multiply_keys<T, Tiles>(scores, held, own_queries, keys_at<Tiles>(stages, key));
      if (!work.sight.all_see(warp.first, warp.end, key, key + kKeys)) {
        mask_scores(scores, work.sight, warp.first, key);
      }
      fold_scores<Tiles>(scores, softmax, factors, derived.exponent_scale);
      round_probabilities<T, Tiles>(probabilities, scores);
      if (derived.dropout.seed != nullptr) {
        drop_probabilities(probabilities, derived.dropout, work.q_begin + warp.first, head_of_block(derived), key);
      }
    }
    ptx::cp_async_wait<Tiles::kUnderWay>();
    block_barrier();  // the values have arrived; the keys have been read
    copy_tile<Tiles>(keys_at<Tiles>(stages, next_keys), a.k, next_keys, work);
    if (sees) multiply_values<T, Tiles>(out, factors, probabilities, values_at<Tiles>(stages, key));
  }
  stage_rows<T, Tiles>(own_queries, a, derived, work, warp, out, softmax);
  block_barrier();  // all rows are staged
  write_rows<kWidth>(a, derived, work, queries);
}

template <typename T, int kWidth>
void start(const AttentionForwardCall& call, const DeviceContext& context) {
  const int64_t slots = tile_slots(call.batch, call.batch.q_rows, call.batch.q_length, kQueries);
  if (slots == 0) return;
  const int64_t group = call.shape.heads / call.shape.kv_heads;
  const Derived derived{static_cast<int>(slots), static_cast<int>(group), call.shape.scale * kLog2E,
                        dropout_of(call.shape, call.dropout_seed)};
  const LaunchShape shape{slots * group, call.shape.kv_heads, kThreads, 1, ForwardTiles<T, kWidth>::kBytes};
  launch("attention_mma_forward", &attention_mma_forward_tile<T, kWidth>, shape, context, call, derived);
}

template <typename T>
void start(const AttentionForwardCall& call, const DeviceContext& context) {
  switch (call.shape.width) {
    case 64: return start<T, 64>(call, context);
    case 80: return start<T, 80>(call, context);
    case 96: return start<T, 96>(call, context);
    case 128: return start<T, 128>(call, context);
  }
}

}  // namespace

void attention_mma_forward(const AttentionForwardCall& call, const DeviceContext& context) {
  if (call.element == Element::kBfloat16) return start<device::bfloat16>(call, context);
  return start<device::half>(call, context);
}

}  // namespace igf
