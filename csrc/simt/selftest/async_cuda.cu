// Kernels of the words of sm_90 that order asynchronous work, for the emulator's own tests: each breaks one rule.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx_barriers.cuh"
#include "device/ptx_bulk.cuh"
#include "simt/selftest/async_selftest.h"

namespace igf::selftest {
namespace {

using namespace device;

constexpr int kThreads = 64;  // warp 0 produces, warp 1 consumes
constexpr int kTiles = 8;
constexpr int kStages = 2;
constexpr int kRows = 8;      // of a tile
constexpr int kColumns = 32;
constexpr int kTileBytes = kRows * kColumns * 4;

// Where element (row, column) of a tile lies, in the 128-byte swizzle.
IGF_DEVICE float* element(unsigned char* tile, int row, int column) {
  return reinterpret_cast<float*>(tile) + row * kColumns + ((column / 4) ^ row) * 4 + column % 4;
}

// Right: input tiles come through two stages, are doubled, and go out by tensor stores.
IGF_KERNEL(kThreads) pipeline_right(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, kStages);
  IGF_SHARED_ARRAY(uint64_t, empty, kStages);
  unsigned char* const results = tiles + kStages * kTileBytes;
  if (thread_x() == 0) {
    for (int s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(full + s, 1);
      ptx::mbarrier_init(empty + s, kWarp);
    }
    ptx::mbarrier_init_fence();
  }
  block_barrier();  // the mbarriers stand
  if (thread_x() == 0) {
    for (int i = 0; i < kTiles; ++i) {
      const int stage = i % kStages;
      ptx::mbarrier_wait(empty + stage, (i / kStages & 1) ^ 1);
      ptx::mbarrier_arrive_expecting(full + stage, kTileBytes);
      ptx::load_tile<2>(tiles + stage * kTileBytes, a.in, {0, i * kRows}, full + stage);
    }
  }
  if (thread_x() < kWarp) return;
  for (int i = 0; i < kTiles; ++i) {
    const int stage = i % kStages;
    ptx::mbarrier_wait(full + stage, i / kStages & 1);
    float values[kRows];
    for (int r = 0; r < kRows; ++r) values[r] = 2 * *element(tiles + stage * kTileBytes, r, lane_index());
    ptx::mbarrier_arrive(empty + stage);
    if (lane_index() == 0) ptx::bulk_wait_read<0>();
    warp_barrier();  // the last tile has been read out of shared memory
    for (int r = 0; r < kRows; ++r) *element(results, r, lane_index()) = values[r];
    ptx::proxy_fence_shared();
    warp_barrier();  // all lanes have written the tile
    if (lane_index() == 0) {
      ptx::store_tile<2>(a.out, {0, i * kRows}, results);
      ptx::bulk_commit();
    }
  }
  if (lane_index() == 0) ptx::bulk_wait_read<0>();
}

constexpr AsyncKernel kKernels[] = {
    {"pipeline_right", &pipeline_right},
};

}  // namespace

AsyncKernels async_kernels() { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

void start_async(const AsyncKernel& which, AsyncArguments arguments, const DeviceContext& context) {
  launch(which.name, which.kernel, {1, 1, which.threads, 1, (kStages + 1) * kTileBytes}, context, arguments);
}

}  // namespace igf::selftest
