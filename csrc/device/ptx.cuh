// PTX instructions that C++ has no word for: each has one wrapper, here, and one twin in the emulator.
//
// Source: PTX ISA 9.0, the section named at each wrapper. Pointers are generic C++ pointers; those called `shared` must
// point into shared memory.
#pragma once

#include "device/dtype.cuh"
#include "device/words.cuh"

#if defined(IGF_SIMT)

#include "simt/device/ptx.h"

#else

namespace igf::device::ptx {

// ex2.approx.ftz.f32 (9.7.3.21): 2^x within 2^-22.5 relative; subnormal results become 0.
IGF_DEVICE float ex2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// tanh.approx.f32 (9.7.3.22): relative error 2^-11.
IGF_DEVICE float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Asynchronous copies from global to shared memory.
//
// Between cp_async and the wait for its group the bytes at `shared` belong to the copy: nobody may touch them, and the
// source may not change. The wait makes them visible to the thread that waits; other threads need a barrier after it.

// Which caches a copy passes: both levels, or the second alone (16 bytes only).
enum class Cache { kBothLevels, kSecondLevel };

// cp.async.ca / cp.async.cg ("Data Movement and Conversion Instructions: Non-bulk copy", cp.async): kBytes = 4, 8 or
// 16, to which both addresses are aligned.
template <int kBytes, Cache kCache = kBytes == 16 ? Cache::kSecondLevel : Cache::kBothLevels>
IGF_DEVICE void cp_async(void* shared, const void* global IGF_SITE_PARAMETER) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kCache == Cache::kSecondLevel) {
    static_assert(kBytes == 16, "cp.async.cg copies 16 bytes");
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)), "l"(global), "n"(kBytes)
                 : "memory");
  }
}

// The same with a source of `source_bytes` in [0, kBytes]: the rest of the kBytes at `shared` becomes 0. With
// source_bytes = 0 nothing is read, but `global` must still be aligned.
template <int kBytes, Cache kCache = kBytes == 16 ? Cache::kSecondLevel : Cache::kBothLevels>
IGF_DEVICE void cp_async_zero_fill(void* shared, const void* global, int source_bytes IGF_SITE_PARAMETER) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kCache == Cache::kSecondLevel) {
    static_assert(kBytes == 16, "cp.async.cg copies 16 bytes");
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
}

// cp.async.commit_group: the thread's copies since its last group become a group; none make an empty one.
IGF_DEVICE void cp_async_commit(IGF_ONLY_SITE_PARAMETER) { asm volatile("cp.async.commit_group;" ::: "memory"); }

// cp.async.wait_group: waits until at most the kPending latest groups of this thread are under way.
template <int kPending>
IGF_DEVICE void cp_async_wait(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0);
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// cp.async.wait_all: waits for every copy of this thread, in a group or not.
IGF_DEVICE void cp_async_wait_all(IGF_ONLY_SITE_PARAMETER) { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Matrices of 8 x 8 elements of 16 bits, between shared memory and the registers of a warp.
//
// All 32 lanes must come. Lane 8 m + r points to row r of matrix m: 16 bytes, aligned to 16; with fewer than four
// matrices the other lanes' pointers are not used. Lane l holds, in register m, the elements (l / 4, 2 (l % 4)) in the
// low and (l / 4, 2 (l % 4) + 1) in the high half; kTransposed exchanges row and column.

// ldmatrix.sync.aligned.m8n8.x{1,2,4}{.trans}.shared.b16 ("Warp-level matrix load instruction: ldmatrix").
template <int kMatrices, bool kTransposed = false>
IGF_DEVICE void ldmatrix(uint32_t (&registers)[kMatrices], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  const uint32_t row = shared_address(shared);
  if constexpr (kMatrices == 1 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(row) : "memory");
  } else if constexpr (kMatrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(row)
                 : "memory");
  } else if constexpr (kMatrices == 2 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(row)
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(row)
                 : "memory");
  }
}

// Whether the target has stmatrix: sm_90 and later. Use it below `if constexpr (ptx::kHasStmatrix)`.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr bool kHasStmatrix = true;
#else
inline constexpr bool kHasStmatrix = false;
#endif

// stmatrix.sync.aligned.m8n8.x{1,2,4}{.trans}.shared.b16 ("Warp-level matrix store instruction: stmatrix").
template <int kMatrices, bool kTransposed = false>
IGF_DEVICE void stmatrix(void* shared, const uint32_t (&registers)[kMatrices] IGF_SITE_PARAMETER) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  static_assert(kHasStmatrix || kMatrices < 0, "stmatrix needs sm_90");
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const uint32_t row = shared_address(shared);
  if constexpr (kMatrices == 1 && !kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(row), "r"(registers[0]) : "memory");
  } else if constexpr (kMatrices == 1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row), "r"(registers[0])
                 : "memory");
  } else if constexpr (kMatrices == 2 && !kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(registers[0]),
                 "r"(registers[1])
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(registers[0]),
                 "r"(registers[1])
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(registers[0]),
                 "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
                 "r"(registers[0]), "r"(registers[1]), "r"(registers[2]), "r"(registers[3])
                 : "memory");
  }
#endif
}

// sums += a b on the tensor cores, by all 32 lanes. T = bfloat16 or half, A 16 x 16, B 16 x 8, sums f32 16 x 8
// ("Matrix Fragments for mma.m16n8k16 with floating point type"). Lane l, with g = l / 4 and t = l % 4, holds
//   a[0..3]      the pairs of columns 2t, 2t + 1 of rows g and g + 8, then columns 2t + 8, 2t + 9 of rows g and g + 8
//   b[0..1]      rows 2t, 2t + 1 of column g, then rows 2t + 8, 2t + 9
//   sums[0..3]   columns 2t, 2t + 1 of row g, then of row g + 8
// the lower column (of B: row) in the low half. So ldmatrix<4> of row-major A gives a, with the matrices in the order
// (rows 0-7, columns 0-7), (8-15, 0-7), (0-7, 8-15), (8-15, 8-15), and ldmatrix<2, true> of row-major B gives b.
// mma.sync.aligned.m16n8k16.row.col.f32.{bf16,f16}.{bf16,f16}.f32
template <typename T>
IGF_DEVICE void mma_m16n8k16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] IGF_SITE_PARAMETER);

template <>
IGF_DEVICE void mma_m16n8k16<bfloat16>(float (&sums)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2] IGF_SITE_PARAMETER) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
IGF_DEVICE void mma_m16n8k16<half>(float (&sums)[4], const uint32_t (&a)[4],
                                   const uint32_t (&b)[2] IGF_SITE_PARAMETER) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The barriers 1 to 15 of a block (0 is block_barrier's), for `threads` of its threads, whole warps
// ("Parallel Synchronization and Communication Instructions: bar, barrier"). The threads that come, by either word, make
// up the number; those that only arrive go on at once, those that sync wait and then see what all wrote before.
IGF_DEVICE void named_barrier_sync(int barrier, int threads IGF_SITE_PARAMETER) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
IGF_DEVICE void named_barrier_arrive(int barrier, int threads IGF_SITE_PARAMETER) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Ordered accesses of one word that several blocks use: what a thread did before a release is seen by who acquires the
// value it wrote, or one that an atomic made of it ("Memory Consistency Model"). Data read after an acquire still need
// load_shared_by_blocks.
// ld.acquire.gpu.global.u32, st.release.gpu.global.u32, atom.add.acq_rel.gpu.global.u32, red.add.release.gpu.global.u32
IGF_DEVICE uint32_t load_acquire(const uint32_t* place IGF_SITE_PARAMETER) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(place) : "memory");
  return value;
}
IGF_DEVICE void store_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(place), "r"(value) : "memory");
}
IGF_DEVICE uint32_t add_acquire_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  uint32_t before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(before) : "l"(place), "r"(value) : "memory");
  return before;
}
IGF_DEVICE void add_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  asm volatile("red.add.release.gpu.global.u32 [%0], %1;" ::"l"(place), "r"(value) : "memory");
}

// Two floats rounded to nearest, ties to even, in one word, `low` in its low half
// ("Data Movement and Conversion Instructions: cvt"): cvt.rn.bf16x2.f32, cvt.rn.f16x2.f32.
template <typename T>
IGF_DEVICE uint32_t pack_pair(float low, float high);

template <>
IGF_DEVICE uint32_t pack_pair<bfloat16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

template <>
IGF_DEVICE uint32_t pack_pair<half>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// prefetch.global.L2 ("Data Movement and Conversion Instructions: prefetch"): asks for the line of a global address.
IGF_DEVICE void prefetch_l2(const void* global IGF_SITE_PARAMETER) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

}  // namespace igf::device::ptx

#endif  // IGF_SIMT
