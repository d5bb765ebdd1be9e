// Micro-kernels: ldmatrix, stmatrix and mma. Each shows which lane holds which element, or what is computed.
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

constexpr int kRowWords = 4;  // of an 8 x 8 matrix of 16-bit elements: 16 bytes
constexpr int kRows = 32;     // of four such matrices

// Four matrices, input[0..127], row after row; lane l points to row input[128 + l] in [0, 32).
// output[32 m + l]: register m of lane l.
template <int kMatrices, bool kTransposed>
IGF_KERNEL(32) load_matrix(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, rows, kRows * kRowWords);
#pragma unroll
  for (int i = 0; i < kRowWords; ++i) rows[32 * i + thread_x()] = load(a.input + 32 * i + thread_x());
  warp_barrier();  // all rows are in shared memory
  uint32_t registers[kMatrices];
  ptx::ldmatrix<kMatrices, kTransposed>(registers, rows + kRowWords * load(a.input + 128 + thread_x()));
#pragma unroll
  for (int m = 0; m < kMatrices; ++m) store(a.output + 32 * m + thread_x(), registers[m]);
}

// The way back: register m of lane l is input[32 m + l], lane l points to row input[32 kMatrices + l];
// output: the 32 rows. Before sm_90 there is no such instruction and the output stays 0.
template <int kMatrices, bool kTransposed>
IGF_KERNEL(32) store_matrix(Arguments a) {
  if constexpr (ptx::kHasStmatrix) {
    IGF_SHARED_ARRAY(uint32_t, rows, kRows * kRowWords);
#pragma unroll
    for (int i = 0; i < kRowWords; ++i) rows[32 * i + thread_x()] = 0;
    warp_barrier();  // all rows are 0
    uint32_t registers[kMatrices];
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) registers[m] = load(a.input + 32 * m + thread_x());
    ptx::stmatrix<kMatrices, kTransposed>(rows + kRowWords * load(a.input + 32 * kMatrices + thread_x()), registers);
    warp_barrier();  // the matrices are stored
#pragma unroll
    for (int i = 0; i < kRowWords; ++i) store(a.output + 32 * i + thread_x(), rows[32 * i + thread_x()]);
  }
}

// Registers a[i] of lane l in input[32 i + l], b[i] in input[128 + 32 i + l], sums[i] in input[192 + 32 i + l];
// output[32 i + l]: sums[i] of lane l.
template <typename T>
IGF_KERNEL(32) multiply_registers(Arguments p) {
  uint32_t a[4], b[2];
  float sums[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = load(p.input + 32 * i + thread_x());
#pragma unroll
  for (int i = 0; i < 2; ++i) b[i] = load(p.input + 128 + 32 * i + thread_x());
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] = load(reinterpret_cast<const float*>(p.input) + 192 + 32 * i + thread_x());
  ptx::mma_m16n8k16<T>(sums, a, b);
#pragma unroll
  for (int i = 0; i < 4; ++i) store(reinterpret_cast<float*>(p.output) + 32 * i + thread_x(), sums[i]);
}

// D = A B through shared memory: A 16 x 16 in input[0..127], B 16 x 8 in input[128..191], both row-major, two elements a
// word; D 16 x 8 of f32, row-major. As attention loads its values: B by ldmatrix with transposition.
template <typename T>
IGF_KERNEL(32) multiply_tiles(Arguments p) {
  IGF_SHARED_ARRAY(uint32_t, tile_a, 128);
  IGF_SHARED_ARRAY(uint32_t, tile_b, 64);
#pragma unroll
  for (int i = 0; i < 4; ++i) tile_a[32 * i + thread_x()] = load(p.input + 32 * i + thread_x());
#pragma unroll
  for (int i = 0; i < 2; ++i) tile_b[32 * i + thread_x()] = load(p.input + 128 + 32 * i + thread_x());
  warp_barrier();  // both tiles are in shared memory
  uint32_t a[4], b[2];
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  // Lanes 0-15 point to the rows' first 8 columns, lanes 16-31 to their last.
  ptx::ldmatrix<4>(a, tile_a + 8 * (thread_x() % 16) + 4 * (thread_x() / 16));
  ptx::ldmatrix<2, true>(b, tile_b + 4 * (thread_x() % 16));
  ptx::mma_m16n8k16<T>(sums, a, b);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = thread_x() / 4 + 8 * (i / 2);       // [0, 16)
    const int column = 2 * (thread_x() % 4) + (i % 2);  // [0, 8)
    store(reinterpret_cast<float*>(p.output) + 8 * row + column, sums[i]);
  }
}

const MicroKernel kTable[] = {
    {"ldmatrix_x1", 160, 32, 1, 32, &load_matrix<1, false>},
    {"ldmatrix_x2", 160, 64, 1, 32, &load_matrix<2, false>},
    {"ldmatrix_x4", 160, 128, 1, 32, &load_matrix<4, false>},
    {"ldmatrix_x1_trans", 160, 32, 1, 32, &load_matrix<1, true>},
    {"ldmatrix_x2_trans", 160, 64, 1, 32, &load_matrix<2, true>},
    {"ldmatrix_x4_trans", 160, 128, 1, 32, &load_matrix<4, true>},
    {"stmatrix_x1", 64, 128, 1, 32, &store_matrix<1, false>},
    {"stmatrix_x2", 96, 128, 1, 32, &store_matrix<2, false>},
    {"stmatrix_x4", 160, 128, 1, 32, &store_matrix<4, false>},
    {"stmatrix_x1_trans", 64, 128, 1, 32, &store_matrix<1, true>},
    {"stmatrix_x2_trans", 96, 128, 1, 32, &store_matrix<2, true>},
    {"stmatrix_x4_trans", 160, 128, 1, 32, &store_matrix<4, true>},
    {"mma_bfloat16", 320, 128, 1, 32, &multiply_registers<bfloat16>},
    {"mma_half", 320, 128, 1, 32, &multiply_registers<half>},
    {"tile_bfloat16", 192, 128, 1, 32, &multiply_tiles<bfloat16>},
    {"tile_half", 192, 128, 1, 32, &multiply_tiles<half>},
};

}  // namespace

Table matrix_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
