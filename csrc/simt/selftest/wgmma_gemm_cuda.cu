// A matrix product as kernels on sm_90a make it: one warpgroup brings tiles by tensor copies, two multiply by wgmma.
//
// Work     a block makes 128 x 128 elements of C, each consumer 64 rows of them. k goes by in steps of 64, the products of
//          one step are under way while the next step's are issued.
// Memory   per block (128 k + 128 k) elements of 2 bytes, and 128 x 128 of 4 bytes written.
// Numbers  products exact, sums f32.
// Limits   for tests; k and n multiples of 8, as tensor maps ask for.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx_bulk.cuh"
#include "device/ptx_wgmma.cuh"
#include "simt/selftest/wgmma_selftest.h"

namespace igf::selftest {
namespace {

using namespace device;

constexpr int kGroup = 128;
constexpr int kConsumers = 2;
constexpr int kThreads = kGroup * (1 + kConsumers);
constexpr int kRows = 128, kColumns = 128, kDepth = 64;  // of a block's tiles
constexpr int kStages = 2;
constexpr int kPattern = 1024;                        // 8 rows of 128 bytes
constexpr int kTileA = kRows * kDepth * 2;            // bytes; k dense, rows of 128 bytes
constexpr int kHalfB = kDepth * 64 * 2;               // n dense, rows of 64 columns: 128 bytes
constexpr int kTileB = 2 * kHalfB;
constexpr int kSharedBytes = kStages * (kTileA + kTileB);

IGF_DEVICE int stage_of(int step) { return step % kStages; }
IGF_DEVICE int parity_of(int step) { return step / kStages % 2; }

IGF_DEVICE void bring_tiles(const WgmmaGemm& g, unsigned char* tiles, uint64_t* full, uint64_t* empty, int steps) {
  const int row = static_cast<int>(block_y()) * kRows, column = static_cast<int>(block_x()) * kColumns;
  for (int step = 0; step < steps; ++step) {
    const int stage = stage_of(step);
    unsigned char* const a = tiles + stage * (kTileA + kTileB);
    ptx::mbarrier_wait(empty + stage, parity_of(step) ^ 1);
    ptx::mbarrier_arrive_expecting(full + stage, kTileA + kTileB);
    ptx::load_tile<2>(a, g.map_a, {step * kDepth, row}, full + stage);
    ptx::load_tile<2>(a + kTileA, g.map_b, {column, step * kDepth}, full + stage);
    ptx::load_tile<2>(a + kTileA + kHalfB, g.map_b, {column + 64, step * kDepth}, full + stage);
  }
}

// The consumer's 64 rows of A times all of B: four products, of 16 elements of k each.
IGF_DEVICE void multiply_tiles(float (&sums)[kColumns / 2], const unsigned char* a, const unsigned char* b, bool add) {
  const uint64_t tile_a = ptx::wgmma_tile(a, 0, kPattern, Swizzle::k128);
  const uint64_t tile_b = ptx::wgmma_tile(b, kHalfB, kPattern, Swizzle::k128);
#pragma unroll
  for (int k = 0; k < kDepth / 16; ++k) {
    ptx::wgmma<bfloat16, kColumns, false, true>(sums, ptx::wgmma_advance(tile_a, 32 * k),
                                                ptx::wgmma_advance(tile_b, 2 * kPattern * k), add || k > 0);
  }
}

IGF_DEVICE void write_out(const WgmmaGemm& g, const float (&sums)[kColumns / 2], int consumer) {
  const int warp = thread_x() / kWarp % 4;
#pragma unroll
  for (int i = 0; i < kColumns / 2; ++i) {
    const int64_t row = block_y() * kRows + 64 * consumer + 16 * warp + lane_index() / 4 + 8 * (i / 2 % 2);
    const int64_t column = block_x() * kColumns + 8 * (i / 4) + 2 * (lane_index() % 4) + i % 2;
    if (row < g.m && column < g.n) store(g.c + row * g.n + column, sums[i]);
  }
}

IGF_DEVICE void consume(const WgmmaGemm& g, const unsigned char* tiles, uint64_t* full, uint64_t* empty, int steps) {
  const int consumer = thread_x() / kGroup - 1;  // [0, 2)
  float sums[kColumns / 2];
  for (int step = 0; step < steps; ++step) {
    const int stage = stage_of(step);
    const unsigned char* const a = tiles + stage * (kTileA + kTileB);
    ptx::mbarrier_wait(full + stage, parity_of(step));
    ptx::hold(sums);
    ptx::wgmma_fence();
    multiply_tiles(sums, a + consumer * 64 * kDepth * 2, a + kTileA, step > 0);
    ptx::wgmma_commit();
    if (step > 0) {
      ptx::wgmma_wait<1>();
      if (thread_x() % kGroup == 0) ptx::mbarrier_arrive(empty + stage_of(step - 1));
    }
  }
  ptx::wgmma_wait<0>();
  ptx::hold(sums);
  write_out(g, sums, consumer);
}

IGF_KERNEL(kThreads, 1) wgmma_gemm(const IGF_GRID_CONSTANT WgmmaGemm g) {
  if constexpr (ptx::kHasWgmma) {
    IGF_DYNAMIC_SHARED(tiles);
    IGF_SHARED_ARRAY(uint64_t, full, kStages);
    IGF_SHARED_ARRAY(uint64_t, empty, kStages);
    if (thread_x() == 0) {
      for (int stage = 0; stage < kStages; ++stage) {
        ptx::mbarrier_init(full + stage, 1);
        ptx::mbarrier_init(empty + stage, kConsumers);
      }
      ptx::mbarrier_init_fence();
    }
    block_barrier();  // the mbarriers stand
    const int steps = static_cast<int>((g.k + kDepth - 1) / kDepth);
    if (thread_x() < kGroup) {
      ptx::release_registers<40>();
      if (thread_x() == 0) bring_tiles(g, tiles, full, empty, steps);
    } else {
      ptx::claim_registers<232>();
      consume(g, tiles, full, empty, steps);
    }
  }
}

TensorMap map_of(const void* base, int64_t rows, int64_t columns, int box_rows) {
  return tensor_map("wgmma_gemm", {Element::kBfloat16, base, 2, {columns, rows}, {0, 2 * columns}, {64, box_rows},
                                   Swizzle::k128});
}

}  // namespace

void start_wgmma_gemm(const WgmmaGemm& gemm, const void* a, const void* b, const DeviceContext& context) {
  WgmmaGemm g = gemm;
  g.map_a = map_of(a, g.m, g.k, kRows);
  g.map_b = map_of(b, g.k, g.n, kDepth);
  launch("wgmma_gemm", &wgmma_gemm, {ceil_div(g.n, kColumns), ceil_div(g.m, kRows), kThreads, 1, kSharedBytes}, context,
         g);
}

}  // namespace igf::selftest
