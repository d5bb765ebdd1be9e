// Kernels that break the rules of what matrix products by warpgroups read in shared memory, one rule each, for the
// emulator's own tests.
#include "simt/selftest/wgmma_selftest.cuh"

namespace igf::selftest {
namespace {

IGF_DEVICE void issue(float (&sums)[kSums], const uint32_t* tiles IGF_SITE_PARAMETER) {
  ptx::wgmma_fence(IGF_ONLY_SITE);
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles IGF_SITE), tile_at(tiles + kTile IGF_SITE), false IGF_SITE);
  ptx::wgmma_commit(IGF_ONLY_SITE);
}

IGF_KERNEL(kGroup) not_yet_written(WgmmaFault p) {
  float sums[kSums];
  const uint32_t* const tiles = write_tiles(p);
  ptx::proxy_fence_shared();
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) missing_proxy_fence(WgmmaFault p) {
  float sums[kSums];
  const uint32_t* const tiles = write_tiles(p);
  block_barrier();  // the tiles are written, for threads
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// After the barrier it is too late for the writes of the others.
IGF_KERNEL(kGroup) proxy_fence_of_one_thread(WgmmaFault p) {
  float sums[kSums];
  const uint32_t* const tiles = write_tiles(p);
  if (thread_x() == 0) ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) stage_written_early(WgmmaFault p) {
  float sums[kSums];
  uint32_t* const tiles = write_tiles(p);
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  issue(sums, tiles);
  tiles[kTile + thread_x()] = 0;
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// One warp's wait ends the whole warpgroup's product, but the writer is not ordered after it.
IGF_KERNEL(kGroup + kWarp) stage_not_released(WgmmaFault p) {
  float sums[kSums];
  if (thread_x() < kGroup) write_tiles(p);
  uint32_t* const tiles = tiles_of_block();
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  if (thread_x() >= kGroup) {
    tiles[thread_x()] = 0;
    return;
  }
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup + kWarp) stage_released_early(WgmmaFault p) {
  float sums[kSums];
  if (thread_x() < kGroup) write_tiles(p);
  uint32_t* const tiles = tiles_of_block();
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  if (thread_x() >= kGroup) {
    ptx::named_barrier_sync(1, kGroup + kWarp);
    tiles[thread_x()] = 0;
    return;
  }
  issue(sums, tiles);
  ptx::named_barrier_arrive(1, kGroup + kWarp);
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// Right: after the wait, by one warp for all.
IGF_KERNEL(kGroup + kWarp) stage_released(WgmmaFault p) {
  float sums[kSums];
  if (thread_x() < kGroup) write_tiles(p);
  uint32_t* const tiles = tiles_of_block();
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  if (thread_x() >= kGroup) {
    ptx::named_barrier_sync(1, 2 * kWarp);
    tiles[thread_x()] = 0;
    return;
  }
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  if (thread_x() / kWarp == 2) ptx::named_barrier_arrive(1, 2 * kWarp);
  give_out(p, sums);
}

// The wait for the first group does not end the second's reading.
IGF_KERNEL(kGroup) written_after_too_short_a_wait(WgmmaFault p) {
  float first[kSums], second[kSums];
  uint32_t* const tiles = write_tiles(p);
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written
  issue(first, tiles);
  issue(second, tiles);
  ptx::wgmma_wait<1>();
  tiles[thread_x()] = 0;
  ptx::wgmma_wait<0>();
  give_out(p, first);
}

// The second warpgroup fills the tiles, and only one warp of the first has waited for it.
IGF_KERNEL(2 * kGroup) seen_by_one_warp(WgmmaFault p) {
  float sums[kSums];
  if (thread_x() >= kGroup) {
    write_tiles(p);
    ptx::proxy_fence_shared();
    ptx::named_barrier_arrive(1, kGroup + kWarp);
    return;
  }
  if (thread_x() < kWarp) ptx::named_barrier_sync(1, kGroup + kWarp);
  issue(sums, tiles_of_block());
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// Right: all have waited.
IGF_KERNEL(2 * kGroup) seen_by_all(WgmmaFault p) {
  float sums[kSums];
  if (thread_x() >= kGroup) {
    write_tiles(p);
    ptx::proxy_fence_shared();
    ptx::named_barrier_arrive(1, 2 * kGroup);
    return;
  }
  ptx::named_barrier_sync(1, 2 * kGroup);
  issue(sums, tiles_of_block());
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) copy_under_way(WgmmaFault p) {
  float sums[kSums];
  uint32_t* const tiles = tiles_of_block();
  for (int i = thread_x(); i < 2 * kTile / 4; i += kGroup) ptx::cp_async<16>(tiles + 4 * i, p.input + 4 * i);
  ptx::cp_async_commit();
  ptx::proxy_fence_shared();
  block_barrier();  // orders nothing: the copies are under way
  issue(sums, tiles);
  ptx::wgmma_wait<0>();
  ptx::cp_async_wait<0>();
  give_out(p, sums);
}

const WgmmaKernel kTable[] = {
    {"not_yet_written", kGroup, &not_yet_written},
    {"missing_proxy_fence", kGroup, &missing_proxy_fence},
    {"proxy_fence_of_one_thread", kGroup, &proxy_fence_of_one_thread},
    {"stage_written_early", kGroup, &stage_written_early},
    {"stage_not_released", kGroup + kWarp, &stage_not_released},
    {"stage_released_early", kGroup + kWarp, &stage_released_early},
    {"stage_released", kGroup + kWarp, &stage_released},
    {"written_after_too_short_a_wait", kGroup, &written_after_too_short_a_wait},
    {"seen_by_one_warp", 2 * kGroup, &seen_by_one_warp},
    {"seen_by_all", 2 * kGroup, &seen_by_all},
    {"copy_under_way", kGroup, &copy_under_way},
};

}  // namespace

WgmmaKernels wgmma_race_kernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::selftest
