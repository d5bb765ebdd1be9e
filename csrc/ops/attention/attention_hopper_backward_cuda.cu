// attention's backward pass on sm_90a: tensor copies, warpgroup products, and sums of dQ added by the copy engine.
//
// Work     a block has 128 keys and values of one key head and walks over the tiles of queries that see some of them,
//          of all query heads that share the head: five products a tile, 10 * 128 * queries * width operations, in
//          attention_hopper_backward_consumer.cuh. Tiles outside of a causal mask or a window are not visited. A block
//          is 12 warps: 8 multiply, one brings tiles, two add dQ's parts, one has nothing to do.
// Memory   a tile of R queries: 4 R width bytes of Q and dO and 8 R of lse and delta in, 4 R width of dQ's sums added.
//          Once for a block: 512 width bytes of K and V in, as many of dK and dV out, fewer at a sequence's end. Widths
//          80 and 96 read no more than they are, though a tile takes the room of width 128. Before and after:
//          attention_backward_rows.cuh. At width 128 a tile's 32 KiB in and 32 KiB added stand against 2,560 cycles of
//          tensor cores: 26 bytes a cycle and multiprocessor, which the second-level cache must give; the order of
//          work keeps what the heads under way need within it.
// Numbers  scores, sums, dP and dS in f32; P and dS are rounded to T as operands; dK and dV rounded once. dQ's sums are
//          f32, in the order of tiles of keys when deterministic, else in any.
// Limits   bound by tensor cores, beside which exponentials and the products' reads of shared memory weigh most: with
//          both operands there and N = 64 these take all of its 128 bytes a cycle. 65,536 registers are 256 x 240 +
//          128 x 24 and a rest; one block a multiprocessor; 64 KiB of tiles on their way or in use. Widths 64, 80, 96
//          and 128, bf16 and f16, rows and heads on 16 bytes, at least one row of queries and of keys, no dropout.
//          Not measured.
// Source   attention.h; Dao et al. 2022, arXiv:2205.14135, algorithm 4; the roles of warps after Shah et al. 2024,
//          arXiv:2407.08608.
#include <algorithm>
#include <cfloat>

#include "ops/attention/attention_hopper_backward_consumer.cuh"
#include "ops/attention/attention_hopper_backward_producer.cuh"

namespace igf {
namespace {

using namespace device;
using namespace attention;

constexpr int kProducerRegisters = 24;
constexpr int kConsumerRegisters = 240;

// Bytes of queries, their gradients and sums that may be in use at a time: half of the second-level cache.
constexpr int64_t kBytesTogether = int64_t{24} << 20;

// The block's number in the order of work. When deterministic, blocks take numbers as they begin, so that those whom a
// block waits for have begun before it.
IGF_DEVICE int64_t work_number(const HopperBackward& a) {
  return a.deterministic ? static_cast<int64_t>(atomic_add(a.work.ticket, 1u)) : block_x();
}

template <typename T, int kWidth>
IGF_KERNEL(kBackwardThreads, 1)
attention_hopper_backward_tiles(HopperBackward a, const IGF_GRID_CONSTANT BackwardMaps maps) {
  if constexpr (ptx::kHasWgmma) {
    using Plan = BackwardPlan<T, kWidth>;
    IGF_SHARED_ARRAY(BackwardItem, item, 1);
    IGF_SHARED_ARRAY(BackwardBarriers, barriers, 1);
    IGF_SHARED_ARRAY(float, lse2, kBackwardStages * Plan::kQueries);
    IGF_SHARED_ARRAY(float, delta, kBackwardStages * Plan::kQueries);
    IGF_DYNAMIC_SHARED(tiles);
    if (thread_x() == 0) {
      begin_barriers(barriers[0]);
      item[0] = backward_item<Plan>(a, work_number(a));
    }
    block_barrier();  // the item and the barriers, before anyone uses them
    const BackwardItem& work = item[0];
    const BackwardPlaces<Plan> places{tiles, lse2, delta, barriers};
    const int group = shuffle(thread_x() / (4 * kWarp), 0);  // [0, 3): of warps; the last one multiplies nothing
    if (group == kBackwardGroups) {
      ptx::release_registers<kProducerRegisters>();
      const int warp = thread_x() / kWarp % 4;
      if (lane_index() == 0 && work.has_keys() && work.first_tile < work.end_tile) {
        if (warp == 0) bring_backward_tiles<Plan>(a, maps, work, places);
        if (warp == 1) add_backward_sums<Plan>(a, work, places, 0);
        if (warp == 2) add_backward_sums<Plan>(a, work, places, 1);
      }
    } else {
      ptx::claim_registers<kConsumerRegisters>();
      if (work.has_keys()) multiply_backward_tiles<Plan>(a, work, places, group);
    }
  }
}

// How many key heads go through a sequence together.
int64_t heads_together(const AttentionBackwardCall& call) {
  const AttentionBatch& batch = call.batch;
  const int64_t rows = batch.cu_seqlens == nullptr ? batch.q_length : batch.q_rows / batch.sequences;
  const int64_t of_row = (2 * 2 + 4) * call.shape.width;  // bytes of q, dout and sums
  const int64_t of_head = std::max<int64_t>(rows, 1) * (call.shape.heads / call.shape.kv_heads) * of_row;
  return std::clamp<int64_t>(kBytesTogether / of_head, 1, call.shape.kv_heads);
}

BackwardMaps backward_maps(const AttentionBackwardCall& call) {
  const AttentionShape& shape = call.shape;
  const AttentionBatch& batch = call.batch;
  const auto keys = [&](const char* name, const AttentionView<const void>& view) {
    return tile_map(name, batch, call.element, view, shape.kv_heads, shape.width, batch.k_rows, batch.k_length,
                    kBackwardKeys);
  };
  const auto queries = [&](const char* name, const AttentionView<const void>& view) {
    return tile_map(name, batch, call.element, view, shape.heads, shape.width, batch.q_rows, batch.q_length,
                    backward_tile_queries(shape.width));
  };
  return {queries("attention's q", call.q), keys("attention's k", call.k), keys("attention's v", call.v),
          queries("attention's dout", call.dout)};
}

template <typename T, int kWidth>
void run(const HopperBackward& a, const BackwardMaps& maps, const DeviceContext& context) {
  const int64_t blocks = a.key_slots * a.shape.kv_heads;
  launch("attention_hopper_backward_tiles", &attention_hopper_backward_tiles<T, kWidth>,
         {blocks, 1, kBackwardThreads, 1, BackwardPlan<T, kWidth>::kSharedBytes}, context, a, maps);
}

template <typename T>
void backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  const int64_t key_slots = tile_slots(call.batch, call.batch.k_rows, call.batch.k_length, kBackwardKeys);
  if (key_slots == 0) return;  // no sequence
  const BackwardWorkspace work = backward_workspace(call, backward_tile_queries(call.shape.width));
  const float scale2 = std::max(call.shape.scale * kLog2E, FLT_MIN);  // not 0: -infinity * 0 is NaN
  const HopperBackward a{call.shape, call.batch, call.dk, call.dv, work, scale2, call.deterministic, key_slots,
                         heads_together(call)};
  const BackwardMaps maps = backward_maps(call);
  prepare_backward<T>(call, work, context);
  switch (call.shape.width) {
    case 64: run<T, 64>(a, maps, context); break;
    case 80: run<T, 80>(a, maps, context); break;
    case 96: run<T, 96>(a, maps, context); break;
    case 128: run<T, 128>(a, maps, context); break;
  }
  finish_backward<T>(call, work, context);
}

}  // namespace

void attention_hopper_backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  switch (call.element) {
    case Element::kBfloat16: return backward<device::bfloat16>(call, context);
    case Element::kHalf: return backward<device::half>(call, context);
    case Element::kFloat: return;
  }
}

int64_t attention_hopper_workspace(const AttentionBackwardCall& call, const DeviceContext&) {
  return attention::backward_workspace_bytes(call, attention::backward_tile_queries(call.shape.width));
}

}  // namespace igf
