// The warps that multiply nothing: one brings tiles, two add dQ's parts to the workspace.
//
// Work goes from the last tile of queries to the first: under a causal mask all blocks of a head then begin at the same
// tile and end where their own keys are, so a deterministic block waits at the beginning, once, and not at every tile.
#pragma once

#include "device/ptx.cuh"
#include "ops/attention/attention_hopper_backward_plan.cuh"

namespace igf::attention {

// Loads K and V once, then Q, lse, dO and delta tile by tile. By one thread.
template <typename Plan>
IGF_DEVICE void bring_backward_tiles(const HopperBackward& a, const BackwardMaps& maps, const BackwardItem& item,
                                     const BackwardPlaces<Plan>& places) {
  namespace ptx = device::ptx;
  using KeyTile = typename Plan::KeyTile;
  using QueryTile = typename Plan::QueryTile;
  constexpr int kRowBytes = Plan::kQueries * 4;
  BackwardBarriers& barriers = *places.barriers;
  const TileOwner keys = tile_owner(a.batch, item.kv_head, item.at.k_begin, item.at.sequence);
  ptx::mbarrier_arrive_expecting(&barriers.keys, 2 * KeyTile::kBytes);
  load_rows<KeyTile>(places.keys(), maps.k, keys, item.at.tile * kBackwardKeys, &barriers.keys);
  load_rows<KeyTile>(places.values(), maps.v, keys, item.at.tile * kBackwardKeys, &barriers.keys);

  Ring<kBackwardStages> ring;
  for (int member = 0; member < item.group; ++member) {
    const int head = item.kv_head * item.group + member;
    for (int tile = item.end_tile - 1; tile >= item.first_tile; --tile) {
      const TileOwner owner = tile_owner(a.batch, head, item.at.q_begin, item.at.sequence);
      const int first = tile * Plan::kQueries;
      const int64_t rows = (head * a.work.slots + item.first_slot + tile) * Plan::kQueries;  // of lse2 and delta
      uint64_t* const queries_full = &barriers.queries_full[ring.stage];
      uint64_t* const dout_full = &barriers.dout_full[ring.stage];
      // Until all consumers have read the stage's last tile; at once in the first round.
      ptx::mbarrier_wait(&barriers.empty[ring.stage], ring.parity ^ 1);
      ptx::mbarrier_arrive_expecting(queries_full, QueryTile::kBytes + kRowBytes);
      load_rows<QueryTile>(places.queries(ring.stage), maps.q, owner, first, queries_full);
      ptx::bulk_load(places.lse2 + ring.stage * Plan::kQueries, a.work.lse2 + rows, kRowBytes, queries_full);
      ptx::mbarrier_arrive_expecting(dout_full, QueryTile::kBytes + kRowBytes);
      load_rows<QueryTile>(places.dout(ring.stage), maps.dout, owner, first, dout_full);
      ptx::bulk_load(places.delta + ring.stage * Plan::kQueries, a.work.delta + rows, kRowBytes, dout_full);
      ring.advance();
    }
  }
}

// Waits until `turn` tiles of keys have added both their parts to a tile of queries. Whoever is waited for holds an
// earlier ticket, so it already runs. This block's other part may have been counted before.
IGF_DEVICE void await_turn(const uint32_t* counter, uint32_t turn) {
  while (device::ptx::load_acquire(counter) < turn * kBackwardGroups) device::let_others_run();
  // The additions before were made by the async proxy, and so is the one to come.
  device::ptx::proxy_fence_global();
}

// Adds one warpgroup's parts of dQ to the workspace as they come. By one thread.
//
// Bulk additions take 4 or 16 KiB an instruction and leave the consumers at once. Reductions of four floats from
// registers would be 8 instructions a thread and tile, each after two shuffles, and a deterministic block's consumers
// would have to wait for its turn themselves.
template <typename Plan>
IGF_DEVICE void add_backward_sums(const HopperBackward& a, const BackwardItem& item,
                                  const BackwardPlaces<Plan>& places, int part) {
  namespace ptx = device::ptx;
  const int bytes = Plan::run_floats(part) * 4;
  int parity = 0;
  for (int member = 0; member < item.group; ++member) {
    const int head = item.kv_head * item.group + member;
    for (int tile = item.end_tile - 1; tile >= item.first_tile; --tile) {
      const int64_t slot = head * a.work.slots + item.first_slot + tile;
      float* const place = a.work.dq_sum + slot * (Plan::kQueries * Plan::kWidth) + Plan::part_begin(part);
      ptx::mbarrier_wait(&places.barriers->sums_full[part], parity);
      if (a.deterministic) {
        const Sight sight = sight_of(a.shape, item.at);
        const int first_tile = sight.first_key(tile * Plan::kQueries) / kBackwardKeys;  // of keys that these see
        await_turn(a.work.counters + slot, item.at.tile - first_tile);
      }
#pragma unroll
      for (int run = 0; run < Plan::kRuns; ++run) {
        ptx::bulk_add(place + run * Plan::kRunStride, places.sums(part) + run * bytes, bytes);
      }
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
      ptx::mbarrier_arrive(&places.barriers->sums_empty[part]);
      if (a.deterministic) {
        ptx::bulk_wait<0>();
        ptx::proxy_fence_global();
        ptx::add_release(a.work.counters + slot, 1);
      }
      parity ^= 1;
    }
  }
}

}  // namespace igf::attention
