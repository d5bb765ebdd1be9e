// attention_decode on CUDA devices: one launch appends and attends, whatever the lengths of the rows.
//
// Work     a block has some queries of one row that share a key head (16 on the tensor cores, 4 or 1 on CUDA cores: heads
//          of a group, token by token) and a share of the positions that they see, of which each of its four warps takes
//          every fourth step; see attention_decode_mma.cuh and attention_decode_general.cuh. The last block of a row, head and
//          tile of queries to arrive joins what the shares gave (attention_decode_merge.cuh).
// Append   a new key or value is read from the arguments by whoever sees it, and written by the one block whose share it
//          is in and whose tile has its token's first query: nobody waits for a write.
// Memory   bytes a tile of queries: each key and value that it sees once, 4 for each page of each step of 4 to 16 positions;
//          queries, and 4 for the row's length, a block; where there is more than one share, 4 (width + 2) written and
//          read for each query and share. T * group queries make T * group / tile tiles, rounded up.
// Bound    memory: 64 rows of 1024 positions and 25 heads of width 64 are 419 MB of bf16, 102 us at 4.1 TB/s. At batch 1 the
//          chain of latencies: length, page, key and value, sums, the count of arrivals, the other shares' sums. With 25
//          heads and 1024 positions 400 blocks run at once, and each warp has one step. Not measured.
// Limits   widths up to 256; tables of 2^30 positions, caches of 2^30 slots.
// Source   attention_decode.h; shares of the sequence after Dao, Haziza, Massa, Sizov 2023, "Flash-Decoding for long-context
//          inference"; the running softmax after Milakov and Gimelshein 2018, arXiv:1805.02867.
#include <algorithm>
#include <bit>

#include "device/launch.cuh"
#include "ops/attention_decode/attention_decode_general.cuh"
#include "ops/attention_decode/attention_decode_mma.cuh"

namespace igf {
namespace {

using namespace decode;

// Positions a share has at least: one step for each warp where blocks are few, and more where they are many, because a
// share costs its block some microseconds of latency, and its sums' way to memory and back.
constexpr int64_t kLeastShare = kWarps * kMmaStep;
constexpr int64_t kLeastShareOfMany = 256;
// Rounds of blocks, one after the other, that leave the device even at the end.
constexpr int64_t kRounds = 8;
// With more units than this a row is not split: they are rounds enough, and the counters stay few.
constexpr int64_t kMostUnits = 4096;

bool on_sixteen_bytes(const AttentionDecodeView& view, int64_t lanes) {
  return stands_on(view.data, 16) && view.row_stride % lanes == 0 && view.token_stride % lanes == 0 &&
         view.head_stride % lanes == 0;
}

bool in_vectors(const AttentionDecodeCuda& a) {
  const int64_t lanes = 16 / static_cast<int64_t>(element_bytes(a.element));
  return a.shape.width % lanes == 0 && on_sixteen_bytes(a.q, lanes) && on_sixteen_bytes(a.k, lanes) &&
         on_sixteen_bytes(a.v, lanes) && stands_on(a.k_cache, 16) && stands_on(a.v_cache, 16);
}

bool on_tensor_cores(const AttentionDecodeCuda& a) {
  const int64_t width = a.shape.width;
  return a.element != Element::kFloat && (width == 64 || width == 80 || width == 96 || width == 128) && in_vectors(a);
}

struct Plan {
  int64_t tile, tiles, units;
};

Plan plan_of(const AttentionDecodeCuda& a) {
  const AttentionDecodeShape& s = a.shape;
  const int64_t queries = s.tokens * (s.heads / s.kv_heads);
  const int64_t tile = on_tensor_cores(a) ? kMmaTile : queries == 1 ? 1 : 4;
  const int64_t tiles = ceil_div(queries, tile);
  return {tile, tiles, s.rows * s.kv_heads * tiles};
}

// Blocks that are resident at a time, on CUDA cores about.
int64_t resident_blocks(const AttentionDecodeCuda& a, const DeviceContext& context) {
  static_assert(kMmaBlocks<96> == kMmaBlocks<128>);
  const int64_t width = a.shape.width;
  const int each = !on_tensor_cores(a) || width == 64 ? kMmaBlocks<64> : width == 80 ? kMmaBlocks<80> : kMmaBlocks<128>;
  return context.multiprocessors * each;
}

// From the table's capacity, not the lengths, which the host does not know.
int64_t splits_of(const AttentionDecodeCuda& a, const Plan& plan, const DeviceContext& context) {
  const AttentionDecodeShape& s = a.shape;
  if (plan.units > kMostUnits) return 1;
  const int64_t capacity = s.table_width * s.page;
  const int64_t longest = s.window > 0 ? std::min(capacity, s.window + s.tokens) : capacity;
  const int64_t resident = resident_blocks(a, context);
  const bool few = 2 * plan.units <= resident;
  const int64_t wanted = few ? resident / plan.units : ceil_div(kRounds * resident, plan.units);
  const int64_t most = longest / (few ? kLeastShare : kLeastShareOfMany);
  return std::clamp<int64_t>(std::min(wanted, most), 1, kMostSplits);
}

template <typename T, int kWidth>
void start_mma(const Launch& a, int64_t blocks, const DeviceContext& context) {
  launch("attention_decode_mma", &attention_decode_mma<T, kWidth>, {blocks, 1, kThreads, 1}, context, a);
}

template <typename T>
void choose_mma(const Launch& a, int64_t blocks, const DeviceContext& context) {
  switch (a.call.shape.width) {
    case 64: return start_mma<T, 64>(a, blocks, context);
    case 80: return start_mma<T, 80>(a, blocks, context);
    case 96: return start_mma<T, 96>(a, blocks, context);
    default: return start_mma<T, 128>(a, blocks, context);
  }
}

template <typename T, int kAccess, int kLanes, int kVectors>
void start_general(const Launch& a, int64_t blocks, const DeviceContext& context) {
  const LaunchShape shape{blocks, 1, kThreads, 1};
  if (a.tile == 1) {
    using One = General<T, kAccess, kLanes, kVectors, 1>;
    launch("attention_decode_general", &attention_decode_general<One>, shape, context, a);
  } else {
    using Four = General<T, kAccess, kLanes, kVectors, 4>;
    launch("attention_decode_general", &attention_decode_general<Four>, shape, context, a);
  }
}

template <typename T>
void choose(const Launch& a, int64_t blocks, const DeviceContext& context) {
  if constexpr (sizeof(T) == 2) {
    if (on_tensor_cores(a.call)) return choose_mma<T>(a, blocks, context);
  } else if (in_vectors(a.call) && a.call.shape.width <= 64) {
    return start_general<T, 4, 16, 1>(a, blocks, context);
  } else if (in_vectors(a.call) && a.call.shape.width <= 128) {
    return start_general<T, 4, 32, 1>(a, blocks, context);
  }
  start_general<T, 1, 32, kMostDecodeWidth / kWarp>(a, blocks, context);
}

// Floats of the partials in front of the sums: two for each query of each block, rounded up to 128 bytes.
int64_t statistic_floats(const Plan& plan, int64_t splits) {
  return ceil_div(plan.units * splits * plan.tile * 2, 32) * 32;
}

Launch launch_of(const AttentionDecodeCuda& a, float* partials, const DeviceContext& context) {
  const AttentionDecodeShape& s = a.shape;
  const Plan plan = plan_of(a);
  const bool cut = s.window > 0 && s.window < s.table_width * s.page;
  const auto page = static_cast<uint64_t>(s.page);
  const int64_t splits = splits_of(a, plan, context);
  return {a,
          partials,
          statistic_floats(plan, splits),
          context.arrivals,
          static_cast<int32_t>(s.heads / s.kv_heads),
          static_cast<int32_t>(plan.tile),
          static_cast<int32_t>(plan.tiles),
          static_cast<int32_t>(splits),
          static_cast<int32_t>(s.kv_heads * s.width),
          static_cast<int32_t>(cut ? s.window : 0),
          std::has_single_bit(page) ? std::countr_zero(page) : -1};
}

bool without_work(const AttentionDecodeCuda& a) { return a.shape.rows == 0 || a.shape.tokens == 0; }

}  // namespace

int64_t attention_decode_counters(const AttentionDecodeCuda& a) {
  const int64_t units = without_work(a) ? 0 : plan_of(a).units;
  return units > kMostUnits ? 0 : units;
}

int64_t attention_decode_partial_floats(const AttentionDecodeCuda& a, const DeviceContext& context) {
  if (without_work(a)) return 0;
  const Plan plan = plan_of(a);
  const int64_t splits = splits_of(a, plan, context);
  return splits == 1 ? 0 : statistic_floats(plan, splits) + plan.units * splits * plan.tile * a.shape.width;
}

void attention_decode_cuda(const AttentionDecodeCuda& a, float* partials, const DeviceContext& context) {
  if (without_work(a)) return;
  const Launch launched = launch_of(a, partials, context);
  const int64_t blocks = plan_of(a).units * launched.splits;
  switch (a.element) {
    case Element::kFloat: return choose<float>(launched, blocks, context);
    case Element::kBfloat16: return choose<device::bfloat16>(launched, blocks, context);
    case Element::kHalf: return choose<device::half>(launched, blocks, context);
  }
}

}  // namespace igf
