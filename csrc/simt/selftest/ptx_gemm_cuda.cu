// A matrix product as kernels on sm_80 make it: tiles by cp.async into two stages, ldmatrix, mma.
//
// Work     a block makes 64 x 32 elements of C with 4 warps; a warp 16 rows of them. k goes by in steps of 32.
// Memory   per block (64 k + 32 k) elements of 2 bytes, and 64 x 32 of 4 bytes written.
// Numbers  products exact, sums f32.
// Limits   for tests; k and n multiples of 8, so that a copy of 16 bytes is either inside or outside.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "simt/selftest/ptx_selftest.h"

namespace igf::selftest {
namespace {

using namespace device;

constexpr int kThreads = 128;
constexpr int kRows = 64, kColumns = 32, kDepth = 32;  // of a block's tiles
constexpr int kChunk = 8;                              // elements of 16 bytes
constexpr int kRowChunks = 4;                          // of a tile's row: 64 bytes, in A as in B
constexpr int kStages = 2;

// Where chunk `chunk` of row `row` stands in a tile. Rows are 64 bytes, two of them pass all banks: exchanged by the
// number of the pair, the same chunk of 8 rows lies in 8 different groups of banks.
template <GemmForm kForm>
IGF_DEVICE int place_in_tile(int row, int chunk) {
  return row * kRowChunks + (kForm == GemmForm::kPlainTiles ? chunk : chunk ^ (row / 2 % kRowChunks));
}

// Copies the tiles that begin at depth `first`; what lies outside the matrices becomes 0.
template <GemmForm kForm>
IGF_DEVICE void copy_tiles(const PtxGemm& g, bfloat16* tile_a, bfloat16* tile_b, int64_t first) {
  for (int i = thread_x(); i < kRows * kRowChunks; i += kThreads) {  // [0, 256)
    const int64_t row = block_y() * kRows + i / kRowChunks;
    const int64_t column = first + i % kRowChunks * kChunk;
    const bool inside = row < g.m && column < g.k;
    const bfloat16* from = static_cast<const bfloat16*>(g.a) + (inside ? row * g.k + column : 0);
    ptx::cp_async_zero_fill<16>(tile_a + kChunk * place_in_tile<kForm>(i / kRowChunks, i % kRowChunks), from,
                                inside ? 16 : 0);
  }
  for (int i = thread_x(); i < kDepth * kRowChunks; i += kThreads) {  // [0, 128)
    const int64_t row = first + i / kRowChunks;
    const int64_t column = block_x() * kColumns + i % kRowChunks * kChunk;
    const bool inside = row < g.k && column < g.n;
    const bfloat16* from = static_cast<const bfloat16*>(g.b) + (inside ? row * g.n + column : 0);
    ptx::cp_async_zero_fill<16>(tile_b + kChunk * place_in_tile<kForm>(i / kRowChunks, i % kRowChunks), from,
                                inside ? 16 : 0);
  }
}

// Adds the product of one pair of tiles to the warp's 16 rows of sums.
template <GemmForm kForm>
IGF_DEVICE void multiply_tiles(float (&sums)[kColumns / 8][4], const bfloat16* tile_a, const bfloat16* tile_b) {
  const int lane = lane_index();
  const int first_row = thread_x() / kWarp * 16;
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t a[4];
    ptx::ldmatrix<4>(a, tile_a + kChunk * place_in_tile<kForm>(first_row + lane % 16, k / kChunk + lane / 16));
    if constexpr (kForm == GemmForm::kSwappedRegisters) {
      const uint32_t second = a[1];
      a[1] = a[2];
      a[2] = second;
    }
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      uint32_t b[2];
      ptx::ldmatrix<2, true>(b, tile_b + kChunk * place_in_tile<kForm>(k + lane % 16, n));
      ptx::mma_m16n8k16<bfloat16>(sums[n], a, b);
    }
  }
}

template <GemmForm kForm>
IGF_KERNEL(kThreads) ptx_gemm(PtxGemm g) {
  IGF_SHARED_ARRAY(bfloat16, tiles_a, kStages * kRows * kDepth);
  IGF_SHARED_ARRAY(bfloat16, tiles_b, kStages * kDepth * kColumns);
  const int steps = static_cast<int>((g.k + kDepth - 1) / kDepth);
  float sums[kColumns / 8][4] = {};
  copy_tiles<kForm>(g, tiles_a, tiles_b, 0);
  ptx::cp_async_commit();
  for (int step = 0; step < steps; ++step) {
    const int next = (step + 1) % kStages;
    if (step + 1 < steps) {
      copy_tiles<kForm>(g, tiles_a + next * kRows * kDepth, tiles_b + next * kDepth * kColumns, (step + 1) * kDepth);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    block_barrier();  // this step's tiles have arrived, every thread's part
    const int stage = step % kStages;
    multiply_tiles<kForm>(sums, tiles_a + stage * kRows * kDepth, tiles_b + stage * kDepth * kColumns);
    block_barrier();  // this step's tiles have been read and may be copied to
  }
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = block_y() * kRows + thread_x() / kWarp * 16 + lane_index() / 4 + 8 * (i / 2);
      const int64_t column = block_x() * kColumns + 8 * n + 2 * (lane_index() % 4) + i % 2;
      if (row < g.m && column < g.n) store(g.c + row * g.n + column, sums[n][i]);
    }
  }
}

template <GemmForm kForm>
void start(const PtxGemm& g, const DeviceContext& context) {
  launch("ptx_gemm", &ptx_gemm<kForm>, {ceil_div(g.n, kColumns), ceil_div(g.m, kRows), kThreads, 1}, context, g);
}

}  // namespace

void start_ptx_gemm(const PtxGemm& gemm, GemmForm form, const DeviceContext& context) {
  switch (form) {
    case GemmForm::kRight: return start<GemmForm::kRight>(gemm, context);
    case GemmForm::kSwappedRegisters: return start<GemmForm::kSwappedRegisters>(gemm, context);
    case GemmForm::kPlainTiles: return start<GemmForm::kPlainTiles>(gemm, context);
  }
}

void start_ptx_fault(const PtxKernel& which, const PtxArguments& arguments, const DeviceContext& context) {
  launch(which.name, which.kernel, {1, 1, 32, 1}, context, arguments);
}

}  // namespace igf::selftest
