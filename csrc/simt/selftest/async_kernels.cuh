// What the kernels of mbarriers, copies and proxies have in common.
#pragma once

#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "device/ptx_barriers.cuh"
#include "device/ptx_bulk.cuh"
#include "simt/selftest/async_selftest.h"

namespace igf::selftest {

using namespace device;

constexpr int kThreads = 64;
constexpr int kRows = 8;  // of a tile
constexpr int kColumns = 32;
constexpr int kTileBytes = kRows * kColumns * 4;
constexpr int kTiles = 4;  // in dynamic shared memory

// Where element (row, column) of a tile lies, in the 128-byte swizzle.
IGF_DEVICE float* element(unsigned char* tile, int row, int column) {
  return reinterpret_cast<float*>(tile) + row * kColumns + ((column / 4) ^ row) * 4 + column % 4;
}

// Begins `count` mbarriers of `arrivals` each; all threads may use them after.
IGF_DEVICE void begin(uint64_t* barriers, int count, int arrivals IGF_SITE_PARAMETER) {
  if (thread_x() == 0) {
    for (int i = 0; i < count; ++i) ptx::mbarrier_init(barriers + i, arrivals IGF_SITE);
    ptx::mbarrier_init_fence(IGF_ONLY_SITE);
  }
  device::block_barrier(IGF_ONLY_SITE);  // the mbarriers stand
}

// One thread brings a tile of the input.
IGF_DEVICE void bring(unsigned char* tile, const TensorMap& map, int row, uint64_t* full IGF_SITE_PARAMETER) {
  ptx::mbarrier_arrive_expecting(full, kTileBytes IGF_SITE);
  ptx::load_tile<2>(tile, map, {0, row}, full IGF_SITE);
}

// A warp writes a tile: element (r, c) = r * 32 + c + `first`.
IGF_DEVICE void write_tile(unsigned char* tile, float first) {
  for (int r = 0; r < kRows; ++r) *element(tile, r, lane_index()) = first + static_cast<float>(r * kColumns + lane_index());
}

// A warp copies a tile to rows [row, row + 8) of the output.
IGF_DEVICE void give(float* output, unsigned char* tile, int row IGF_SITE_PARAMETER) {
  for (int r = 0; r < kRows; ++r) {
    store(output + (row + r) * kColumns + lane_index(), *element(tile, r, lane_index()) IGF_SITE);
  }
}

}  // namespace igf::selftest
