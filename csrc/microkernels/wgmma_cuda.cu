// Micro-kernels: wgmma, one product a kernel. Each shows where elements lie in shared memory and in registers.
#include <type_traits>

#include "device/memory.cuh"
#include "device/ptx_wgmma.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

constexpr int kThreads = 128;
constexpr int kRows = 64;
constexpr int kHeader = 8;      // words
constexpr int kPattern = 256;   // words: a multiple of where every swizzle repeats
constexpr int kDigests = 2;     // of a thread

enum class A { kDense, kTransposed, kRegisters };

// Where B's tile begins behind A's.
IGF_DEVICE int whole_patterns(int words) { return (words + kPattern - 1) / kPattern * kPattern; }

// sums = A B, or sums += A B. input: words of A, words of B, then of A and of B: swizzle, leading, stride as wgmma_tile
// takes them; then A (the bytes of its tile in shared memory, or four registers a thread) and B (its bytes). The sums
// begin as the numbers of their places: element i of thread t as i - t.
// output[128 h + t]: of the h-th half of thread t's sums, which are integers, the sum of number (i + 1) times the i-th, in
// 32 bits. Where there is no such instruction the output stays 0.
template <typename T, int kColumns, A kA, bool kTransposeB, bool kAdd>
IGF_KERNEL(kThreads) warpgroup_product(Arguments p) {
  if constexpr (ptx::kHasWgmma) {
    IGF_DYNAMIC_SHARED(tiles);
    const int a_words = static_cast<int>(load(p.input)), b_words = static_cast<int>(load(p.input + 1));
    const uint32_t* const image_a = p.input + kHeader;
    const uint32_t* const image_b = image_a + a_words;
    uint32_t* const a = reinterpret_cast<uint32_t*>(tiles);
    uint32_t* const b = a + (kA == A::kRegisters ? 0 : whole_patterns(a_words));
    for (int i = thread_x(); kA != A::kRegisters && i < a_words; i += kThreads) a[i] = load(image_a + i);
    for (int i = thread_x(); i < b_words; i += kThreads) b[i] = load(image_b + i);
    ptx::proxy_fence_shared();
    block_barrier();  // the tiles are in shared memory
    const auto tile = [&](const uint32_t* words, int operand) {
      const uint32_t* const lies = p.input + 2 + 3 * operand;
      return ptx::wgmma_tile(words, static_cast<int>(load(lies + 1)), static_cast<int>(load(lies + 2)),
                             static_cast<Swizzle>(load(lies)));
    };
    float sums[kColumns / 2];
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) sums[i] = static_cast<float>(i - thread_x());
    uint32_t registers[4] = {};
    if constexpr (kA == A::kRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) registers[i] = load(image_a + 4 * thread_x() + i);
    }
    const uint64_t tile_b = tile(b, 1);
    const uint64_t tile_a = tile(a, 0);
    ptx::hold(sums);
    ptx::hold(registers);
    ptx::wgmma_fence();
    if constexpr (kA == A::kRegisters) {
      ptx::wgmma<T, kColumns, kTransposeB>(sums, registers, tile_b, kAdd);
    } else {
      ptx::wgmma<T, kColumns, kA == A::kTransposed, kTransposeB>(sums, tile_a, tile_b, kAdd);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::hold(sums);
#pragma unroll
    for (int half = 0; half < kDigests; ++half) {
      int32_t digest = 0;
#pragma unroll
      for (int i = 0; i < kColumns / 4; ++i) digest += (i + 1) * static_cast<int32_t>(sums[half * kColumns / 4 + i]);
      store(p.output + kThreads * half + thread_x(), static_cast<uint32_t>(digest));
    }
  }
}

// Words of a dense tile of `extent` rows or columns by 16 of k, whose rows have `row` bytes.
constexpr int words_of(bool k_dense, int extent, int row) {
  const int pattern = 8 * row / 4;
  if (k_dense) return extent / 8 * pattern * (row == 16 ? 2 : 1);
  return (2 * extent + row - 1) / row * pattern * 2;
}

template <typename T, int kColumns, A kA, bool kTransposeB, bool kAdd>
constexpr MicroKernel kernel(const char* name, int row_a, int row_b) {
  const int a_words = kA == A::kRegisters ? 4 * kThreads : words_of(kA == A::kDense, kRows, row_a);
  const int b_words = words_of(!kTransposeB, kColumns, row_b);
  const int shared = 4 * ((kA == A::kRegisters ? 0 : (a_words + kPattern - 1) / kPattern * kPattern) + b_words);
  MicroKernel made{name, kHeader + a_words + b_words, kDigests * kThreads, 1, kThreads,
                   &warpgroup_product<T, kColumns, kA, kTransposeB, kAdd>};
  made.shared_bytes = shared;
  return made;
}

// Names: type, N, A and B by what is dense in memory, or registers, and their swizzles in bytes.
const MicroKernel kTable[] = {
    kernel<bfloat16, 64, A::kDense, false, false>("wgmma_bfloat16_64_k0_k0", 16, 16),
    kernel<bfloat16, 64, A::kDense, false, false>("wgmma_bfloat16_64_k32_k64", 32, 64),
    kernel<bfloat16, 64, A::kDense, false, false>("wgmma_bfloat16_64_k128_k128", 128, 128),
    kernel<bfloat16, 64, A::kTransposed, true, false>("wgmma_bfloat16_64_m0_n0", 16, 16),
    kernel<bfloat16, 64, A::kTransposed, true, false>("wgmma_bfloat16_64_m32_n64", 32, 64),
    kernel<bfloat16, 64, A::kTransposed, true, false>("wgmma_bfloat16_64_m128_n128", 128, 128),
    kernel<half, 64, A::kDense, true, true>("wgmma_half_64_k64_n32", 64, 32),
    kernel<half, 64, A::kTransposed, false, true>("wgmma_half_64_m64_k32", 64, 32),
    kernel<half, 64, A::kRegisters, false, true>("wgmma_half_64_registers_k128", 0, 128),
    kernel<bfloat16, 80, A::kDense, false, true>("wgmma_bfloat16_80_k128_k128", 128, 128),
    kernel<half, 80, A::kRegisters, true, true>("wgmma_half_80_registers_n32", 0, 32),
    kernel<half, 80, A::kRegisters, true, true>("wgmma_half_80_registers_n128", 0, 128),
    kernel<half, 96, A::kDense, false, true>("wgmma_half_96_k128_k128", 128, 128),
    kernel<bfloat16, 96, A::kRegisters, true, true>("wgmma_bfloat16_96_registers_n64", 0, 64),
    kernel<bfloat16, 96, A::kRegisters, true, true>("wgmma_bfloat16_96_registers_n128", 0, 128),
    kernel<bfloat16, 128, A::kDense, false, true>("wgmma_bfloat16_128_k128_k128", 128, 128),
    kernel<half, 128, A::kDense, false, true>("wgmma_half_128_k128_k128", 128, 128),
    kernel<bfloat16, 128, A::kRegisters, true, true>("wgmma_bfloat16_128_registers_n128", 0, 128),
    kernel<bfloat16, 128, A::kTransposed, true, true>("wgmma_bfloat16_128_m128_n128", 128, 128),
};

}  // namespace

Table wgmma_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
