// attention, forward, for sm_90a: tensor copies, wgmma, one bringing and two or three computing warpgroups.
//
// Work     a block stays and takes tiles of queries of one head (attention_hopper_work.cuh), 64 queries a consumer. Per
//          consumer and tile of 128 keys, width D: two products of 64 * 128 * D, 8192 exponentials. With a causal mask
//          the tiles on the diagonal are computed whole: 64 keys a query more than needed, 12 % of the work at length
//          1024, 6 % at 2048, 3 % at 4096. A consumer passes over tiles that its own 64 queries do not see at all.
// Memory   e = 2 bytes: q once and out once, e D each a query and head; keys and values 2 e D a key, for each tile of
//          queries the keys of the tiles it sees, mostly from the second-level cache; lse 4 a query and head. In a packed
//          batch the last tile of a sequence also reads what rows of the next lie in it, and 8 bytes of bounds for each
//          step of the search for an item's sequence.
// Numbers  scores, sums and out in f32; weights rounded to T for the product with v, their sum before that. Each query's
//          result depends on its sequence alone, not on which block computes it or on the rest of a batch.
// Limits   bf16 and f16, widths 64, 80, 96 and 128, no dropout, at least one row of keys; q, k, v and out on 16 bytes
//          with strides that are multiples of it.
// Speed    not measured. A multiprocessor does 2048 products of 16-bit numbers and 16 exponentials a clock, so a
//          consumer's tile takes 8 D clocks of the tensor cores and 512 of the exponentials; about 560 instructions of
//          each of its warps (4 schedulers, a warp of each consumer on each) do the rest: per pair of scores 2 maxima,
//          2 fused multiplications, 2 exponentials, 2 additions and a rounding. So at width 64 tensor cores,
//          exponentials and instructions all come near 90 % busy if they overlap perfectly, and what is lost between
//          them decides: predicted 0.55 of a matmul's rate; at width 128 the tensor cores are the bound: predicted 0.75.
//          Three things overlap: a consumer's softmax with its own product of the tile before and v, with the products of
//          the other consumers, and all with the copies, 2 to 4 stages ahead (64 KiB and more under way).
//          Next to try: computing a fifth of the exponentials at width 64 by a polynomial on the idle half of the f32
//          units; half tiles on the diagonal.
// Source   attention.h; overlap of softmax and products after Shah et al. 2024, arXiv:2407.08608.
#include <algorithm>
#include <cfloat>
#include <limits>
#include <stdexcept>
#include <string>

#include "ops/attention/attention_hopper_forward.cuh"

namespace igf {
namespace attention::hopper_forward {

// Tiles. A consumer holds, in f32, 64 registers of scores and D / 2 of out a thread, and 32 of packed weights; ptxas needs
// about 25 more. One block a multiprocessor: 65536 registers and 227 KiB.
//
// width  queries  stages of keys and of values  registers (bringer + consumers)  shared memory
//    64  192      4                              32 * 128 + 160 * 384 = 65536     176 KiB   24 q + 24 out + 8 * 16
//    80  128      2                              40 * 128 + 232 * 256 = 64512     192 KiB   32 q + 32 out + 4 * 32
//    96  128      2                              the same                         192 KiB   the same
//   128  128      2                              the same                         192 KiB   the same
//
// Three consumers want D / 2 + 96 + 25 <= 160: width 64 alone (at 80 ptxas serialises the products). More than 128 keys
// would not leave scores and weights in registers; fewer would read v as often for less work. Turns: at width 64 to 96
// the softmax takes as long as the products, and consumers that issue in turns keep out of step by themselves; at 128
// the products take twice as long and fill the gaps anyway, and a barrier a tile only costs.
template <>
struct ForwardTiles<64> {
  static constexpr int kConsumers = 3, kKeys = 128, kStages = 4;
  static constexpr bool kTakeTurns = true;
  static constexpr int kProducerRegisters = 32, kConsumerRegisters = 160;
};
template <>
struct ForwardTiles<80> {
  static constexpr int kConsumers = 2, kKeys = 128, kStages = 2;
  static constexpr bool kTakeTurns = true;
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
};
template <>
struct ForwardTiles<96> : ForwardTiles<80> {};
template <>
struct ForwardTiles<128> : ForwardTiles<80> {
  static constexpr bool kTakeTurns = false;
};

}  // namespace attention::hopper_forward

namespace {

using namespace attention::hopper_forward;

// The list of work: see attention_hopper_work.cuh.
template <typename C>
ForwardPlan plan_of(const AttentionForwardCall& call, const DeviceContext& context) {
  const AttentionShape& shape = call.shape;
  const AttentionBatch& batch = call.batch;
  const bool packed = batch.cu_seqlens != nullptr;
  const int64_t pairs = packed ? shape.heads : batch.sequences * shape.heads;
  const int64_t tiles = packed ? attention::tile_slots(batch, batch.q_rows, 0, C::kRows)
                               : ceil_div(batch.q_length, C::kRows);
  const int64_t bytes = batch.k_length * shape.width * 4;  // of keys and values of a head; packed: not known
  const int64_t heads = packed ? pairs : std::max<int64_t>(kSectionBytes / bytes, 1) * (shape.heads / shape.kv_heads);
  if (pairs * tiles > std::numeric_limits<int>::max()) {
    throw std::runtime_error("attention: " + std::to_string(pairs * tiles) + " tiles of queries are more than " +
                             std::to_string(std::numeric_limits<int>::max()));
  }
  return {shape,
          batch,
          call.out,
          call.lse,
          std::max(shape.scale * kLog2E, FLT_MIN),  // not 0: -infinity * 0 is NaN
          static_cast<int>(pairs),
          static_cast<int>(tiles),
          static_cast<int>(std::min(heads, pairs)),
          static_cast<int>(pairs * tiles),
          context.arrivals};
}

template <typename T, int kWidth>
void forward(const AttentionForwardCall& call, const DeviceContext& context) {
  using C = ForwardConfig<T, kWidth>;
  const AttentionBatch& batch = call.batch;
  const ForwardPlan plan = plan_of<C>(call, context);
  if (plan.items == 0) return;
  const auto of_queries = [&](const char* name, const AttentionView<const void>& view) {
    return attention::tile_map(name, batch, call.element, view, call.shape.heads, kWidth, batch.q_rows, batch.q_length,
                               C::Queries::kRows);
  };
  const auto of_keys = [&](const char* name, const AttentionView<const void>& view) {
    return attention::tile_map(name, batch, call.element, view, call.shape.kv_heads, kWidth, batch.k_rows,
                               batch.k_length, C::Keys::kRows);
  };
  const AttentionView<const void> out{call.out.data, call.out.row_stride, call.out.head_stride};
  const LaunchShape grid{std::min(plan.items, context.multiprocessors), 1, C::kThreads, 1, C::kSharedBytes};
  launch("attention_hopper_forward_tiles", &attention_hopper_forward_tiles<C>, grid, context, plan,
         of_queries("q", call.q), of_keys("k", call.k), of_keys("v", call.v), of_queries("out", out));
}

template <typename T>
void forward_of_width(const AttentionForwardCall& call, const DeviceContext& context) {
  switch (call.shape.width) {
    case 64: return forward<T, 64>(call, context);
    case 80: return forward<T, 80>(call, context);
    case 96: return forward<T, 96>(call, context);
    default: return forward<T, 128>(call, context);
  }
}

}  // namespace

void attention_hopper_forward(const AttentionForwardCall& call, const DeviceContext& context) {
  if (call.element == Element::kBfloat16) return forward_of_width<device::bfloat16>(call, context);
  return forward_of_width<device::half>(call, context);
}

}  // namespace igf
