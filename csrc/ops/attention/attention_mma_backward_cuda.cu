#include <algorithm>
#include <stdexcept>

#include "ops/attention/attention_mma_backward.cuh"

namespace igf {
namespace {

using namespace attention;
using namespace attention::mma_backward;

// The order of a launch's blocks: pairs of a sequence and a key head in sections, in a section by tiles of keys, first
// tile first. Under a causal mask that is longest first; and a section's q, dout and dq stay in the second-level cache
// while its tiles of keys pass over them. The tiles of a pair come in ascending order whatever the section.
struct BlockOrder {
  int64_t tiles;    // of keys: of a sequence; of all, when packed (then there is one "sequence")
  int64_t pairs;
  int64_t section;  // pairs
};

constexpr int64_t kSectionBytes = 16 << 20;  // a part of the cache that sm_80 and later data centre parts have: 40 MB

BlockOrder block_order(const AttentionBackwardCall& call) {
  const int64_t slots = tile_slots(call.batch, call.batch.k_rows, call.batch.k_length, kKeys);
  if (call.batch.cu_seqlens != nullptr) return {slots, call.shape.kv_heads, call.shape.kv_heads};
  const int64_t pairs = call.batch.sequences * call.shape.kv_heads;
  // q and dout in two bytes, dq's sums in four, of the heads that share a key head.
  const int64_t row_bytes = 8 * call.shape.width * (call.shape.heads / call.shape.kv_heads);
  const int64_t section = kSectionBytes / std::max<int64_t>(call.batch.q_length * row_bytes, 1);
  return {ceil_div(call.batch.k_length, kKeys), pairs, std::clamp<int64_t>(section, 1, std::max<int64_t>(pairs, 1))};
}

IGF_DEVICE Item item_of(const BlockOrder& order, int64_t number, int64_t kv_heads) {
  const int64_t section = number / (order.section * order.tiles), first = section * order.section;
  const int64_t pairs = order.pairs - first < order.section ? order.pairs - first : order.section;
  const int64_t within = number - first * order.tiles, tile = within / pairs, pair = first + within % pairs;
  return {pair / kv_heads * order.tiles + tile, static_cast<int>(pair % kv_heads)};
}

// Waits until the tiles of keys before the caller's have been added. By a whole warp.
IGF_DEVICE void wait_for_turn(const uint32_t* counter, int turn) {
  if (lane_index() == 0) {
    while (ptx::load_acquire(counter) != static_cast<uint32_t>(turn)) let_others_run();
  }
  warp_barrier();  // the turn has come for all lanes
}

template <typename T, int kWidth>
IGF_KERNEL(Plan<kWidth>::kThreads, Plan<kWidth>::kBlocks)
attention_mma_backward_tiles(AttentionBackwardCall call, BackwardWorkspace work, Dropout dropout, BlockOrder order,
                             bool ordered) {
  using Tile = Plan<kWidth>;
  IGF_DYNAMIC_SHARED(bytes);
  const Shared<T, Tile> shared{bytes};

  // In shared memory, because registers are short and most of it is seldom needed.
  IGF_SHARED_ARRAY(Place, place_of_block, 1);
  const Place& place = place_of_block[0];
  if (thread_x() == 0) {
    // The ticket numbers blocks in the order in which they begin: so one waits for lower ones alone, which have begun.
    const int64_t number = ordered ? atomic_add(work.ticket, 1u) : block_x();
    place_of_block[0] = place_of(call, item_of(order, number, call.shape.kv_heads));
  }
  block_barrier();  // the place is known to all
  if (place.first_key >= place.at.k_count) return;
  const int steps = place.group * (place.tile_end - place.tile_begin);

  Held<Tile> held = {};
  copy_keys_async<T, Tile>(shared.stages(), call.v, place);
  copy_keys_async<T, Tile>(shared.keys(), call.k, place);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  block_barrier();  // k and v are there for all
#pragma unroll
  for (int s = 0; s < Tile::kSlabs; ++s) {
    const T* const values = shared.stages() + (thread_x() / kWarp * Tile::kSlabs + s) * kSlab * kWidth;
#pragma unroll
    for (int pair = 0; pair < Tile::kPairs; ++pair) load_a<kWidth>(held.v[s][pair], values, pair);
  }
  block_barrier();  // v is in registers, and its place free for q and dout

  Scoring scoring{call.shape.scale * kLog2E, dropout.seed != nullptr, dropout.factor, false, 0};
  Step step{place.kv_head * place.group, place.tile_end - 1};
  int64_t tile = 0;  // of the step before
  if (steps > 0) copy_step_async(shared, 0, call, work, place, step);
  for (int i = 0; i < steps; ++i) {
    const int stage = i % kStages;
    ptx::cp_async_wait<0>();
    block_barrier();  // the step's rows are there for all; the other stage, ds and dq of the step before are done with
    if (ordered && i > 0 && thread_x() == 0) ptx::add_release(work.counters + tile, 1u);
    if (i + 1 < steps) copy_step_async(shared, 1 - stage, call, work, place, step.next(place));

    const int first_query = step.tile * kQueries;
    const int end_query = first_query + kQueries < place.at.q_count ? first_query + kQueries : place.at.q_count;
    scoring.masked = !place.sight.all_see(first_query, end_query, place.first_key, place.first_key + kKeys);
    if (scoring.dropping) scoring.kept = draw_kept<Tile>(dropout, place, step);
#pragma unroll 1
    for (int half = 0; half < 2; ++half) half_step<T, Tile>(held, shared, stage, scoring, place, first_query, half);
    block_barrier();  // ds of all keys is there for all

    DqPart<Tile> part;
    multiply_dq<T, Tile>(part, shared);
    tile = step.head * work.slots + place.slot_base + step.tile;
    if (ordered) wait_for_turn(work.counters + tile, place.at.tile - place.sight.first_key(first_query) / kKeys);
    add_dq(work.dq_sum + tile * (kQueries * kWidth), part);
    step = step.next(place);
  }
  block_barrier();  // nobody reads k, q or dout any more, and the last dq is added
  if (ordered && steps > 0 && thread_x() == 0) ptx::add_release(work.counters + tile, 1u);

  stage_gradients<T, Tile>(shared.keys(), held.dk, call.shape.scale);
  stage_gradients<T, Tile>(shared.stages(), held.dv, 1.0f);
  block_barrier();  // dk and dv are whole rows now
  write_gradients<T, Tile>(call.dk, shared.keys(), place);
  write_gradients<T, Tile>(call.dv, shared.stages(), place);
}

template <typename T, int kWidth>
void backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  using Tile = Plan<kWidth>;
  const BackwardWorkspace work = backward_workspace(call, kQueries);
  prepare_backward<T>(call, work, context);
  const BlockOrder order = block_order(call);
  const device::LaunchShape shape{order.pairs * order.tiles, 1, Tile::kThreads, 1, Tile::kSharedBytes};
  if (shape.blocks_x > 0) {
    // Without queries nothing is added to dq, and no ticket has been prepared.
    const bool ordered = call.deterministic && work.slots > 0;
    device::launch("attention_mma_backward_tiles", &attention_mma_backward_tiles<T, kWidth>, shape, context, call, work,
                   dropout_of(call.shape, call.dropout_seed), order, ordered);
  }
  finish_backward<T>(call, work, context);
}

template <typename T>
void backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  switch (call.shape.width) {
    case 64: return backward<T, 64>(call, context);
    case 80: return backward<T, 80>(call, context);
    case 96: return backward<T, 96>(call, context);
    case 128: return backward<T, 128>(call, context);
    default: throw std::invalid_argument("attention_mma_backward: width must be 64, 80, 96 or 128");
  }
}

}  // namespace

void attention_mma_backward(const AttentionBackwardCall& call, const DeviceContext& context) {
  if (call.element == Element::kBfloat16) return backward<device::bfloat16>(call, context);
  if (call.element == Element::kHalf) return backward<device::half>(call, context);
  throw std::invalid_argument("attention_mma_backward: the elements must be bf16 or f16");
}

int64_t attention_mma_workspace(const AttentionBackwardCall& call, const DeviceContext&) {
  return backward_workspace_bytes(call, attention::mma_backward::kQueries);
}

}  // namespace igf
