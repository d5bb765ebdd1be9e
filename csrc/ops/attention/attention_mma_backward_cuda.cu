// attention's backward pass on tensor cores by mma.sync: sm_80 and later; bf16 and f16, widths 64, 80, 96, 128.
//
// Work: a block owns 128 keys of one key head. It walks the tiles of 32 queries that see them, for each query head of
// its group, from the last tile to the first, and makes five products a tile: s = q k^T, dp = dout v^T, dv += p^T dout,
// dk += ds^T q, dq += ds k, where p = exp2(scale log2(e) s - lse2) and ds = p (dp - delta). dk and dv stay in registers
// and are written once: no other block adds to them. dq is added to f32 sums in the workspace, which a third launch
// rounds; the first makes delta, lse2 and zeros (attention_backward_rows.cuh). Tiles outside the band are not visited.
//
// Orders. Free: blocks add to dq as they come; equal inputs need not give equal bits. Fixed (deterministic): a tile of
// queries counts the tiles of keys that have been added to it; a block adds when the count says that all tiles before
// its own have been. A block waits for such alone as took a ticket before it, so for blocks that run: it ends however
// many blocks fit on the device. Queries are walked from last to first because then, causal or with a window, the
// first block to add to a tile is one that comes to it early.
//
// Memory: with V visits (a tile of 32 queries of a head by a tile of 128 keys; causal (t / 32) (t / 128) / 2 a head,
// and half a row of tiles), in 16-bit elements of width W: k, v, dk, dv once each; q and dout 128 W bytes a visit; lse2
// and delta 256. dq: 128 W bytes of atomic additions a visit, whole lines of 128 bytes a warp. So a visit's 5 * 8192 W
// flops come with 256 W bytes through the second-level cache: 160 a byte, half of them added. A multiprocessor asks for
// the next visit's 128 W + 256 bytes while it works on one. block_order() keeps q, dout and dq's sums in that cache.
// Numbers: products of 16-bit numbers summed in f32; p and ds rounded to 16 bits before they are multiplied, dq's sums
// to f32 once a tile of keys. Queries that see no key, and what is masked, give 0 by choice: whatever stood there.
//
// Limits, by what is counted, not measured on a GPU. Registers: all 255 of 8 warps (65,536 of a multiprocessor), no
// spill on any target; that is one block, or two of 4 warps at width 64, so 8 warps a multiprocessor. Shared memory
// 40.5, 48.5, 56.5 and 72.5 KiB at widths 64, 80, 96, 128, and 1 KiB to stand on 1024 bytes. A step of 32 by 128 at
// width 128 is 2560 cycles of mma on sm_80, and 3310 of reads from shared memory by 16 rows a warp; at width 64, with
// 32 rows a warp, 1280 and 1190. So shared memory bounds the wide heads, the tensor cores width 64. sm_86, sm_89 and
// sm_120 have half the tensor cores to the same shared memory: there they bound all widths.
// Dropout costs one draw of Philox for four elements, as in the forward pass: key_of_row() makes that possible.
// Source: Dao 2023, arXiv:2307.08691, algorithm 2; PTX ISA 9.0, "Matrix Fragments for mma.m16n8k16".
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

// Waits until the tiles of keys before the caller's have been added. By a whole warp. More can have been where packed
// bounds decrease and two sequences share a tile's count: then the sums are no one's, but nobody waits for ever.
IGF_DEVICE void wait_for_turn(const uint32_t* counter, int turn) {
  if (lane_index() == 0) {
    while (ptx::load_acquire(counter) < static_cast<uint32_t>(turn)) let_others_run();
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
