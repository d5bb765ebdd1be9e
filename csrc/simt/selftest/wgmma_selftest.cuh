// What the kernels of wgmma's must-fail tests share: two small tiles and their end.
#pragma once

#include "device/memory.cuh"
#include "device/ptx_wgmma.cuh"
#include "simt/selftest/wgmma_selftest.h"

namespace igf::selftest {

using namespace device;

constexpr int kGroup = 128;
constexpr int kTile = 512;  // words: 64 x 16 elements
constexpr int kSums = 32;   // of a thread: 64 x 64

// Tiles of 64 x 16, k dense, without a swizzle: patterns of 8 rows of 16 bytes, those of k's first 8 elements first.
constexpr int kStride = 128, kLeading = 1024;

IGF_DEVICE uint64_t tile_at(const uint32_t* words IGF_SITE_PARAMETER) {
  return ptx::wgmma_tile(words, kLeading, kStride, Swizzle::kNone IGF_SITE);
}

// A, and B behind it.
IGF_DEVICE uint32_t* tiles_of_block() {
  IGF_DYNAMIC_SHARED(bytes);
  return reinterpret_cast<uint32_t*>(bytes);
}
// By the threads of one warpgroup.
IGF_DEVICE uint32_t* write_tiles(const WgmmaFault& p) {
  uint32_t* const tiles = tiles_of_block();
  for (int i = thread_x() % kGroup; i < 2 * kTile; i += kGroup) tiles[i] = load(p.input + i);  // [0, 1024)
  return tiles;
}
IGF_DEVICE uint32_t* ready_tiles(const WgmmaFault& p) {
  if (thread_x() < kGroup) write_tiles(p);
  ptx::proxy_fence_shared();
  block_barrier();  // the tiles are written, and the async proxy may read them
  return tiles_of_block();
}

IGF_DEVICE void give_out(const WgmmaFault& p, const float (&sums)[kSums]) {
  for (int i = 0; i < kSums; ++i) store(p.output + kSums * (thread_x() % kGroup) + i, sums[i]);
}

// One product and its end, for the kernels that break no rule of registers.
template <bool kTransposeA = false>
IGF_DEVICE void multiply(const WgmmaFault& p, uint64_t a, uint64_t b IGF_SITE_PARAMETER) {
  float sums[kSums];
  ptx::wgmma_fence(IGF_ONLY_SITE);
  ptx::wgmma<bfloat16, 64, kTransposeA>(sums, a, b, false IGF_SITE);
  ptx::wgmma_commit(IGF_ONLY_SITE);
  ptx::wgmma_wait<0>(IGF_ONLY_SITE);
  give_out(p, sums);
}

}  // namespace igf::selftest
