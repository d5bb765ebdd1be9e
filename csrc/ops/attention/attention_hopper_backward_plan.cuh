// The backward pass of attention on sm_90a: its tiles, its shared memory, its workspace, and the order of its work.
//
// A block owns 128 keys and values of one key head. Two warpgroups multiply, 64 keys each, against tiles of queries:
//
//   width  queries  K, V     Q, dO    dS      dQ      in all    why
//   64     128      32 KiB   64 KiB   64 KiB  32 KiB  192 KiB   N = 128: what is read of shared memory serves more
//   80      64      64 KiB   64 KiB   32 KiB  32 KiB  192 KiB   S and dP of 128 queries beside dK and dV would take
//   96      64      64 KiB   64 KiB   32 KiB  32 KiB  192 KiB   64 + 64 + width of a thread's 240 registers, which
//   128     64      64 KiB   64 KiB   32 KiB  32 KiB  192 KiB   leaves too few for addresses from width 80 on
//
// Q and dO have two stages each; dS two buffers, so that one barrier a tile orders all uses of them. One block fits a
// multiprocessor.
//
// dQ of a tile has two parts, one a warpgroup: 64 queries x 64 columns (width 80 and 96: 64, then the other 16 or 32
// columns). A part stands in shared memory as the workspace has it (attention_backward_rows.cuh), which is as fragments
// come: a warp writes 128 bytes in a row, and a bulk addition takes what 16 queries, or at width 64 all 64, have.
#pragma once

#include "ops/attention/attention_backward_rows.cuh"
#include "ops/attention/attention_hopper_tiles.cuh"
#include "ops/attention/attention_sequences.cuh"

namespace igf::attention {

constexpr int kBackwardKeys = 128;        // of a block
constexpr int kBackwardGroups = 2;        // warpgroups that multiply
constexpr int kBackwardConsumers = 256;   // their threads
constexpr int kBackwardThreads = 384;     // and a warpgroup that loads and adds
constexpr int kBackwardStages = 2;
constexpr int kPartColumns = 64;          // of dQ's part of a warpgroup
constexpr int kPartQueries = 64;
constexpr int kPartFloats = kPartQueries * kPartColumns;

template <typename Element, int kHeadWidth>
struct BackwardPlan {
  using T = Element;
  static constexpr int kWidth = kHeadWidth;
  static constexpr int kQueries = kWidth == 64 ? 128 : 64;
  using KeyTile = Tile<kBackwardKeys, kWidth>;
  using QueryTile = Tile<kQueries, kWidth>;
  using ScoreTile = Tile<kQueries, kBackwardKeys>;  // dS: a row a query, a column a key
  using GradientTile = Tile<64, kWidth>;            // dK or dV of a warpgroup, on the way out

  // The parts of dQ are of different queries, or of different columns of the same ones.
  static constexpr bool kPartsByQueries = kQueries == 128;
  static IGF_DEVICE int part_columns(int part) {
    return kPartsByQueries || part == 0 ? kPartColumns : kWidth - kPartColumns;
  }
  // A part is kRuns contiguous pieces of its tile's sums, kRunStride floats apart there, back to back in shared memory.
  static constexpr int kRuns = kPartsByQueries ? 1 : kPartQueries / 16;
  static constexpr int kRunStride = 16 * kWidth;
  static IGF_DEVICE int run_floats(int part) { return kPartQueries / kRuns * part_columns(part); }
  static IGF_DEVICE int part_begin(int part) { return part * (kPartsByQueries ? kPartFloats : 16 * kPartColumns); }

  // Dynamic shared memory, in bytes from its beginning.
  static constexpr int kKeysAt = 0;
  static constexpr int kValuesAt = kKeysAt + KeyTile::kBytes;
  static constexpr int kQueriesAt = kValuesAt + KeyTile::kBytes;
  static constexpr int kGradientsAt = kQueriesAt + kBackwardStages * QueryTile::kBytes;
  static constexpr int kScoresAt = kGradientsAt + kBackwardStages * QueryTile::kBytes;
  static constexpr int kSumsAt = kScoresAt + 2 * ScoreTile::kBytes;
  static constexpr int kSharedBytes = kSumsAt + kBackwardGroups * kPartFloats * 4;
  static_assert(GradientTile::kBytes <= kPartFloats * 4, "dK and dV leave through dQ's place");
};

inline int backward_tile_queries(int64_t width) { return width == 64 ? 128 : 64; }

// What the main kernel is handed, besides tensor maps.
struct HopperBackward {
  AttentionShape shape;
  AttentionBatch batch;
  AttentionView<void> dk, dv;
  BackwardWorkspace work;
  float scale2;  // scale * log2(e)
  bool deterministic;
  int64_t key_slots;
  int64_t heads_together;
};

struct BackwardMaps {
  TensorMap q, k, v, dout;
};

// One block's work: a tile of keys, and the tiles [first_tile, end_tile) of queries that see some of it.
struct BackwardItem {
  SequenceTile at;
  int64_t first_slot;
  int kv_head;
  int first_tile, end_tile;
  int group;  // query heads of the key head

  IGF_DEVICE bool has_keys() const { return at.tile * kBackwardKeys < at.k_count; }
};

// The order of items: `heads_together` key heads go through all tiles of keys together, then the next ones. What these
// heads' queries and sums take stays in the second-level cache; under a causal mask a sequence's longest items come
// first; and the keys before an item's own, for whose additions a deterministic block waits, began long before it.
template <typename Plan>
IGF_DEVICE BackwardItem backward_item(const HopperBackward& a, int64_t number) {
  const int64_t before = number / (a.key_slots * a.heads_together) * a.heads_together;  // heads
  const int64_t rest = number - before * a.key_slots;
  const int64_t left = a.shape.kv_heads - before;
  const int64_t together = left < a.heads_together ? left : a.heads_together;
  const int64_t slot = rest / together;  // [0, key_slots)
  BackwardItem item;
  item.at = tile_of_slot<true>(a.batch, slot, kBackwardKeys);
  item.kv_head = static_cast<int>(before + rest - slot * together);
  item.group = static_cast<int>(a.shape.heads / a.shape.kv_heads);
  item.first_slot = a.batch.cu_seqlens == nullptr
                        ? item.at.sequence * ((a.batch.q_length + Plan::kQueries - 1) / Plan::kQueries)
                        : item.at.q_begin / Plan::kQueries + item.at.sequence;
  const Sight sight = sight_of(a.shape, item.at);
  const int first_key = item.at.tile * kBackwardKeys;
  const int first = sight.first_query(first_key);
  const int end = sight.end_query(first_key + kBackwardKeys, item.at.q_count);
  item.first_tile = first / Plan::kQueries;
  item.end_tile = end > first ? (end + Plan::kQueries - 1) / Plan::kQueries : item.first_tile;
  return item;
}

// Barriers in shared memory; the number of arrivals that end a phase of each.
struct BackwardBarriers {
  uint64_t keys;                           // 1: K and V are there
  uint64_t queries_full[kBackwardStages];  // 1: Q and lse
  uint64_t dout_full[kBackwardStages];     // 1: dO and delta
  uint64_t empty[kBackwardStages];         // the consumers' warps: they have read all four
  uint64_t sums_full[kBackwardGroups];     // the warps of the warpgroup whose part it is
  uint64_t sums_empty[kBackwardGroups];    // 1: the bulk addition has read them
};

IGF_DEVICE void begin_barriers(BackwardBarriers& barriers) {
  namespace ptx = device::ptx;
  constexpr int kWarps = kBackwardConsumers / device::kWarp;
  ptx::mbarrier_init(&barriers.keys, 1);
#pragma unroll
  for (int i = 0; i < kBackwardStages; ++i) {
    ptx::mbarrier_init(&barriers.queries_full[i], 1);
    ptx::mbarrier_init(&barriers.dout_full[i], 1);
    ptx::mbarrier_init(&barriers.empty[i], kWarps);
  }
#pragma unroll
  for (int i = 0; i < kBackwardGroups; ++i) {
    ptx::mbarrier_init(&barriers.sums_full[i], kWarps / kBackwardGroups);
    ptx::mbarrier_init(&barriers.sums_empty[i], 1);
  }
  ptx::mbarrier_init_fence();
}

// Where things stand in a block's shared memory.
template <typename Plan>
struct BackwardPlaces {
  unsigned char* tiles;        // the dynamic block
  float* lse2;                 // [stages, kQueries]
  float* delta;                // the same
  BackwardBarriers* barriers;

  IGF_DEVICE unsigned char* keys() const { return tiles + Plan::kKeysAt; }
  IGF_DEVICE unsigned char* values() const { return tiles + Plan::kValuesAt; }
  IGF_DEVICE unsigned char* queries(int stage) const {
    return tiles + Plan::kQueriesAt + stage * Plan::QueryTile::kBytes;
  }
  IGF_DEVICE unsigned char* dout(int stage) const {
    return tiles + Plan::kGradientsAt + stage * Plan::QueryTile::kBytes;
  }
  IGF_DEVICE unsigned char* scores(int buffer) const {
    return tiles + Plan::kScoresAt + buffer * Plan::ScoreTile::kBytes;
  }
  IGF_DEVICE unsigned char* sums(int group) const { return tiles + Plan::kSumsAt + group * kPartFloats * 4; }
};

}  // namespace igf::attention
