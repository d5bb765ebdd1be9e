// attention's forward pass by mma.sync: for sm_80 and later, bf16 and f16, widths 64, 80, 96 and 128.
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

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;
constexpr int kThreads = 128;
constexpr int kWarpQueries = 32;                            // two fragments of 16 rows: each key is read once for both
constexpr int kQueries = kThreads / kWarp * kWarpQueries;  // of a block
constexpr int kParts = kWarpQueries / 16;
constexpr int kRows = 2 * kParts;  // of sums, in one thread: row r is half r % 2 of part r / 2

template <int kWidth>
struct Choice;
template <>
struct Choice<64> {
  static constexpr int kKeys = 64, kStages = 2, kBlocks = 2;
};
template <>
struct Choice<80> {
  static constexpr int kKeys = 64, kStages = 1, kBlocks = 2;
};
template <>
struct Choice<96> {
  static constexpr int kKeys = 64, kStages = 1, kBlocks = 2;
};
template <>
struct Choice<128> {
  static constexpr int kKeys = 64, kStages = 1, kBlocks = 2;
};

template <typename T, int kTileWidth>
struct ForwardTiles {
  static constexpr int kWidth = kTileWidth;
  static constexpr int kKeys = Choice<kWidth>::kKeys;
  static constexpr int kStages = Choice<kWidth>::kStages;  // each a tile of keys and the same of values
  static constexpr int kTile = kKeys * kWidth;             // elements
  static constexpr int kUnderWay = 2 * kStages - 2;        // groups of copies that may be when a tile is read
  static constexpr int kBytes = (kQueries * kWidth + 2 * kStages * kTile) * static_cast<int>(sizeof(T));
  using Scores = float[kParts][kKeys / 8][4];
  using Probabilities = uint32_t[kParts][kKeys / 16][4];
  using Sums = float[kParts][kWidth / 8][4];
};

IGF_DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// What the launch works out once for all blocks.
struct Derived {
  int64_t slots;         // of tiles of queries
  float exponent_scale;  // scale * log2(e): softmax in powers of two
  Dropout dropout;
};

// One tile of queries of one head, and the keys that some of its queries see: [first_key, end_key).
struct BlockWork {
  Sight sight;
  int q_begin, k_begin;  // where the sequence's rows begin
  int head, kv_head;
  int first_query, end_query;
  int first_key, end_key;  // the first is a multiple of the tile's keys
};

template <int kKeys>
IGF_DEVICE BlockWork block_work(const AttentionForwardCall& a, const Derived& derived IGF_SITE_PARAMETER) {
  const int heads = static_cast<int>(a.shape.heads);
  const int head = static_cast<int>(block_x() % heads);
  // The last tiles of a sequence see the most keys: they go first, so that the launch ends with short ones.
  const SequenceTile at = tile_of_slot<false>(a.batch, derived.slots - 1 - block_x() / heads, kQueries IGF_SITE);
  const Sight sight = sight_of(a.shape, at);
  const int first_query = at.tile * kQueries;
  const int end_query = smaller(first_query + kQueries, at.q_count);
  return {sight,
          static_cast<int>(at.q_begin),
          static_cast<int>(at.k_begin),
          head,
          head / (heads / static_cast<int>(a.shape.kv_heads)),
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

// The softmax of the thread's rows so far, in powers of two. `sum` is the lane's own part of the row's sum.
struct Softmax {
  float top[kRows];  // of scores * exponent_scale; -infinity: nothing seen
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
    copy_tile_async<Tiles::kWidth, kThreads, Tiles::kKeys>(tile, from, work.k_begin + key, work.kv_head,
                                                           work.sight.k_count - key IGF_SITE);
  }
  ptx::cp_async_commit(IGF_ONLY_SITE);
}

// scores = queries of the warp times a tile of keys.
template <typename T, typename Tiles>
IGF_DEVICE void multiply_keys(typename Tiles::Scores& scores, const T* queries, const T* keys IGF_SITE_PARAMETER) {
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
    uint32_t a[kParts][4];
#pragma unroll
    for (int part = 0; part < kParts; ++part) load_a<kWidth>(a[part], queries + 16 * part * kWidth, pair IGF_SITE);
#pragma unroll
    for (int n = 0; n < Tiles::kKeys / 16; ++n) {
      uint32_t b[2][2];
      load_b_rows<kWidth>(b, keys + 16 * n * kWidth, pair IGF_SITE);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        multiply<T>(scores[part][2 * n], scores[part][2 * n + 1], a[part], b IGF_SITE);
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

// out += probabilities times a tile of values.
template <typename T, typename Tiles>
IGF_DEVICE void multiply_values(typename Tiles::Sums& out, const typename Tiles::Probabilities& probabilities,
                                const T* values IGF_SITE_PARAMETER) {
  constexpr int kWidth = Tiles::kWidth;
#pragma unroll
  for (int n = 0; n < Tiles::kKeys / 16; ++n) {
#pragma unroll
    for (int pair = 0; pair < kWidth / 16; ++pair) {
      uint32_t b[2][2];
      load_b_columns<kWidth>(b, values + 16 * n * kWidth, pair IGF_SITE);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        multiply<T>(out[part][2 * pair], out[part][2 * pair + 1], probabilities[part][n], b IGF_SITE);
      }
    }
  }
}

// Scores of keys that a query does not see become -infinity, whatever they are.
template <int kGroups>
IGF_DEVICE void mask_scores(float (&scores)[kParts][kGroups][4], const Sight& sight, int first_query, int first_key) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int query = first_query + row / 2 * 16 + sum_row(row % 2);
    // The row's keys as elements of this thread: element 8 group + e is key first_key + sum_column() + 8 group + e.
    const int begin = sight.first_key(query) - first_key - sum_column();
    const int end = sight.end_key(query + 1) - first_key - sum_column();
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

// Folds a tile of scores into the softmax, turns them into probabilities as seen from the new top, and rescales what was
// summed from the old one.
template <typename Tiles>
IGF_DEVICE void fold_scores(typename Tiles::Scores& scores, Softmax& softmax, typename Tiles::Sums& out,
                            float exponent_scale IGF_SITE_PARAMETER) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int part = row / 2, half = row % 2;
    float most = scores[part][0][2 * half];
#pragma unroll
    for (int group = 0; group < Tiles::kKeys / 8; ++group) {
      most = fmaxf(most, fmaxf(scores[part][group][2 * half], scores[part][group][2 * half + 1]));
    }
    most = fmaxf(most, shuffle_xor(most, 1, kAllLanes IGF_SITE));
    most = fmaxf(most, shuffle_xor(most, 2, kAllLanes IGF_SITE));  // the four lanes of the row
    const float top = fmaxf(softmax.top[row], most * exponent_scale);
    const float base = top == -math::kInfinity ? 0.0f : top;  // of a row that has seen nothing, all powers are 0
    const float factor = fast_exp2(softmax.top[row] - base);
    softmax.top[row] = top;
    float sum = softmax.sum[row] * factor;
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
#pragma unroll
    for (int group = 0; group < Tiles::kWidth / 8; ++group) {
      out[part][group][2 * half] *= factor;
      out[part][group][2 * half + 1] *= factor;
    }
  }
}

// Sets the probabilities that dropout takes to 0. A draw decides on four keys 16 apart.
template <int kGroups>
IGF_DEVICE void drop_probabilities(float (&probabilities)[kParts][kGroups][4], const Dropout& dropout, int64_t first_row,
                                   int head, int first_key IGF_SITE_PARAMETER) {
  const philox::Key key = philox::key_of(load(dropout.seed IGF_SITE));
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int64_t n = first_row + row / 2 * 16 + sum_row(row % 2);
    uint32_t kept = 0;  // bit 2 group + e
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {  // element i % 2 of group i / 2 in each 16 keys
      const int first = first_key / 64 * 64 + sum_column() + i / 2 * 8 + i % 2;
      const uint32_t four = kept_of_four(dropout, key, n, head, first) >> first_key % 64 / 16;
#pragma unroll
      for (int sixteen = 0; sixteen < kGroups / 2; ++sixteen) kept |= (four >> sixteen & 1u) << (4 * sixteen + i);
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& probability = probabilities[row / 2][group][2 * (row % 2) + e];
        probability = (kept >> (2 * group + e) & 1u) != 0 ? probability : 0.0f;
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
IGF_DEVICE void stage_rows(T* staged, const AttentionForwardCall& a, const BlockWork& work, const WarpQueries& warp,
                           const typename Tiles::Sums& out, const Softmax& softmax, float factor IGF_SITE_PARAMETER) {
  constexpr int kWidth = Tiles::kWidth;
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    const int r = row / 2 * 16 + sum_row(row % 2);  // [0, kWarpQueries)
    const float sum = sum_of_row(softmax.sum[row] IGF_SITE);
    // A row that saw no key may have met NaN in values times 0: it is 0 whatever they are.
    const bool seen = sum != 0.0f;
    const float by = factor / sum;
#pragma unroll
    for (int group = 0; group < kWidth / 8; ++group) {
      const float low = out[row / 2][group][2 * (row % 2)] * by, high = out[row / 2][group][2 * (row % 2) + 1] * by;
      store_sums<kWidth>(staged, r, group, seen ? low : 0.0f, seen ? high : 0.0f IGF_SITE);
    }
    if (lane_index() % 4 == 0 && warp.first + r < warp.end) {
      const float lse = seen ? fmaf(softmax.top[row], kLn2, math::log(sum)) : -math::kInfinity;
      store(a.lse + work.head * a.batch.q_rows + work.q_begin + warp.first + r, lse IGF_SITE);
    }
  }
}

// Writes the block's staged rows, 16 bytes a thread at a time.
template <int kWidth, typename T>
IGF_DEVICE void write_rows(const AttentionForwardCall& a, const BlockWork& work, const T* staged IGF_SITE_PARAMETER) {
  T* const rows = static_cast<T*>(a.out.data) + (work.q_begin + work.first_query) * a.out.row_stride +
                  work.head * a.out.head_stride;
  const int count = work.end_query - work.first_query;
  for_each_chunk<kWidth, kThreads, kQueries>(thread_x(), [&](int row, int place, int column) {
    if (row >= count) return;
    const Packed<T> chunk = load(reinterpret_cast<const Packed<T>*>(staged + place) IGF_SITE);
    store(reinterpret_cast<Packed<T>*>(rows + row * a.out.row_stride + column), chunk IGF_SITE);
  });
}

template <typename T, int kWidth>
IGF_KERNEL(kThreads, Choice<kWidth>::kBlocks)
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
    copy_tile_async<kWidth, kThreads, kQueries>(queries, a.q, work.q_begin + work.first_query, work.head,
                                                work.end_query - work.first_query);
  }
#pragma unroll
  for (int stage = 0; stage < Tiles::kStages; ++stage) {
    const int key = work.first_key + stage * kKeys;
    copy_tile<Tiles>(keys_at<Tiles>(stages, key), a.k, key, work);  // the first group has the queries too
    if (stage + 1 < Tiles::kStages) copy_tile<Tiles>(values_at<Tiles>(stages, key), a.v, key, work);
  }
#pragma unroll 1
  for (int key = work.first_key; key < work.end_key; key += kKeys) {
    const bool sees = any_sees(work.sight, warp, key, key + kKeys);
    typename Tiles::Probabilities probabilities;
    ptx::cp_async_wait<Tiles::kUnderWay>();
    block_barrier();  // the keys have arrived, every thread's part; the values before them have been read
    const int next_values = key + (Tiles::kStages - 1) * kKeys, next_keys = key + Tiles::kStages * kKeys;
    copy_tile<Tiles>(values_at<Tiles>(stages, next_values), a.v, next_values, work);
    if (sees) {
      typename Tiles::Scores scores;
      multiply_keys<T, Tiles>(scores, own_queries, keys_at<Tiles>(stages, key));
      if (!work.sight.all_see(warp.first, warp.end, key, key + kKeys)) {
        mask_scores(scores, work.sight, warp.first, key);
      }
      fold_scores<Tiles>(scores, softmax, out, derived.exponent_scale);
      if (derived.dropout.seed != nullptr) {
        drop_probabilities(scores, derived.dropout, work.q_begin + warp.first, work.head, key);
      }
      round_probabilities<T, Tiles>(probabilities, scores);
    }
    ptx::cp_async_wait<Tiles::kUnderWay>();
    block_barrier();  // the values have arrived; the keys have been read
    copy_tile<Tiles>(keys_at<Tiles>(stages, next_keys), a.k, next_keys, work);
    if (sees) multiply_values<T, Tiles>(out, probabilities, values_at<Tiles>(stages, key));
  }
  stage_rows<T, Tiles>(own_queries, a, work, warp, out, softmax, derived.dropout.factor);
  block_barrier();  // all rows are staged
  write_rows<kWidth>(a, work, queries);
}

template <typename T, int kWidth>
void start(const AttentionForwardCall& call, const DeviceContext& context) {
  const int64_t slots = tile_slots(call.batch, call.batch.q_rows, call.batch.q_length, kQueries);
  if (slots == 0) return;
  const Derived derived{slots, call.shape.scale * kLog2E, dropout_of(call.shape, call.dropout_seed)};
  const LaunchShape shape{slots * call.shape.heads, 1, kThreads, 1, ForwardTiles<T, kWidth>::kBytes};
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
