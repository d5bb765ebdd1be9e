// Kernels that break the rules of registers and threads in matrix products by warpgroups, one rule each, for the
// emulator's own tests.
#include "device/launch.cuh"
#include "simt/selftest/wgmma_selftest.cuh"

namespace igf::selftest {
namespace {

// Right: two products in a group, a touch, a fence, another group.
IGF_KERNEL(kGroup) products_right(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums] = {};
  const uint64_t a = tile_at(tiles), b = tile_at(tiles + kTile);
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, a, b, true);
  ptx::wgmma<bfloat16, 64>(sums, a, b, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < kSums; ++i) sums[i] *= 2;
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, a, b, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) missing_fence(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums] = {};
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) sums_after_the_fence(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  for (int i = 0; i < kSums; ++i) sums[i] = 0.0f;
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// The second group's product overwrites what is read before it, and nothing fences the two.
IGF_KERNEL(kGroup) read_without_fence(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  const uint64_t a = tile_at(tiles), b = tile_at(tiles + kTile);
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, a, b, false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  store(p.output + thread_x(), sums[7]);
  ptx::wgmma<bfloat16, 64>(sums, b, a, false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
}

// A in registers: rows of A are what the words of the first tile say, in any order.
IGF_DEVICE void load_a(const WgmmaFault& p, uint32_t (&a)[4]) {
  for (int i = 0; i < 4; ++i) a[i] = load(p.input + 4 * thread_x() + i);
}

IGF_KERNEL(kGroup) a_after_the_fence(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  uint32_t a[4];
  ptx::wgmma_fence();
  load_a(p, a);
  ptx::wgmma<bfloat16, 64>(sums, a, tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

// By a word that fills registers.
IGF_KERNEL(kGroup) a_by_ldmatrix_after_the_fence(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  uint32_t a[4];
  ptx::wgmma_fence();
  ptx::ldmatrix<4>(a, tiles + 4 * lane_index());
  ptx::wgmma<bfloat16, 64>(sums, a, tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) missing_wait(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  store(p.output + thread_x(), sums[5]);
  ptx::wgmma_wait<0>();
}

IGF_KERNEL(kGroup) missing_commit(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_wait<0>();
  store(p.output + thread_x(), sums[6]);
}

// The wait covers the first of two groups, the thread reads what the second one makes.
IGF_KERNEL(kGroup) wait_for_too_few(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float first[kSums], second[kSums];
  const uint64_t a = tile_at(tiles), b = tile_at(tiles + kTile);
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(first, a, b, false);
  ptx::wgmma_commit();
  ptx::wgmma<bfloat16, 64>(second, b, a, false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>();
  store(p.output + thread_x(), first[3]);
  store(p.output + thread_x(), second[3]);
  ptx::wgmma_wait<0>();
}

IGF_KERNEL(kGroup) sums_written_early(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  sums[9] = 0.0f;
  ptx::wgmma_wait<0>();
  give_out(p, sums);
}

IGF_KERNEL(kGroup) a_changed_early(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  uint32_t a[4];
  load_a(p, a);
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, a, tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  a[2] = 0;
  ptx::wgmma_wait<0>();
  give_out(p, sums);
  store(p.output + thread_x(), __builtin_bit_cast(float, a[2]));
}

// Products of two shapes on the same registers.
IGF_KERNEL(kGroup) sums_of_two_shapes(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[2 * kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 128>(sums, tile_at(tiles), ptx::wgmma_tile(tiles, 2 * kLeading, kStride, Swizzle::kNone), false);
  ptx::wgmma<bfloat16, 64>(reinterpret_cast<float(&)[kSums]>(sums), tile_at(tiles), tile_at(tiles + kTile), true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  store(p.output + thread_x(), sums[0]);
}

// What one product makes is A of the next before it was waited for.
IGF_KERNEL(kGroup) a_out_of_sums_under_way(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums], others[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma<bfloat16, 64>(others, reinterpret_cast<const uint32_t(&)[4]>(sums), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  give_out(p, others);
}

IGF_KERNEL(kGroup) sums_in_shared_memory(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  IGF_SHARED_ARRAY(float, sums, kSums);
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
}

IGF_KERNEL(kGroup) left_under_way(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
}

IGF_KERNEL(kGroup) a_warp_returns(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  if (thread_x() >= 96) return;
  multiply(p, tile_at(tiles), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) a_warp_waits_elsewhere(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  if (thread_x() >= 96) ptx::named_barrier_sync(1, kGroup);
  multiply(p, tile_at(tiles), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) a_lane_says_another_word(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  if (thread_x() == 77) ptx::wgmma_commit();
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
}

IGF_KERNEL(kGroup) different_tiles(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(tiles + (thread_x() < 64 ? 0 : kTile)), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) different_waits(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  float sums[kSums];
  ptx::wgmma_fence();
  ptx::wgmma<bfloat16, 64>(sums, tile_at(tiles), tile_at(tiles + kTile), false);
  ptx::wgmma_commit();
  if (thread_x() == 1) {
    ptx::wgmma_wait<1>();
  } else {
    ptx::wgmma_wait<0>();
  }
}

// Four warps, of which the first one's number is 2.
IGF_KERNEL(2 * kGroup) warps_of_two_groups(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  const int warp = thread_x() / kWarp;
  if (warp >= 2 && warp < 6) multiply(p, tile_at(tiles), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup + kWarp) half_a_group(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  if (thread_x() >= kGroup) multiply(p, tile_at(tiles), tile_at(tiles + kTile));
}

const WgmmaKernel kTable[] = {
    {"products_right", kGroup, &products_right},
    {"missing_fence", kGroup, &missing_fence},
    {"sums_after_the_fence", kGroup, &sums_after_the_fence},
    {"read_without_fence", kGroup, &read_without_fence},
    {"a_after_the_fence", kGroup, &a_after_the_fence},
    {"a_by_ldmatrix_after_the_fence", kGroup, &a_by_ldmatrix_after_the_fence},
    {"missing_wait", kGroup, &missing_wait},
    {"missing_commit", kGroup, &missing_commit},
    {"wait_for_too_few", kGroup, &wait_for_too_few},
    {"sums_written_early", kGroup, &sums_written_early},
    {"a_changed_early", kGroup, &a_changed_early},
    {"sums_of_two_shapes", kGroup, &sums_of_two_shapes},
    {"a_out_of_sums_under_way", kGroup, &a_out_of_sums_under_way},
    {"sums_in_shared_memory", kGroup, &sums_in_shared_memory},
    {"left_under_way", kGroup, &left_under_way},
    {"a_warp_returns", kGroup, &a_warp_returns},
    {"a_warp_waits_elsewhere", kGroup, &a_warp_waits_elsewhere},
    {"a_lane_says_another_word", kGroup, &a_lane_says_another_word},
    {"different_tiles", kGroup, &different_tiles},
    {"different_waits", kGroup, &different_waits},
    {"warps_of_two_groups", 2 * kGroup, &warps_of_two_groups},
    {"half_a_group", kGroup + kWarp, &half_a_group},
};

}  // namespace

WgmmaKernels wgmma_fault_kernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

void start_wgmma_fault(const WgmmaKernel& which, const WgmmaFault& arguments, const DeviceContext& context) {
  launch(which.name, which.kernel, {1, 1, which.threads, 1, 4 * 2 * kTile}, context, arguments);
}

}  // namespace igf::selftest
