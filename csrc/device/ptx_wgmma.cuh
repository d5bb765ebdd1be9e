// PTX words of sm_90a for matrix products by a warpgroup: 128 threads, four warps in a row of which the first one's
// number is a multiple of 4. Operands lie in shared memory, or A in registers; sums in registers.
//
// Source: PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Instructions" (fragments, "Shared Memory Matrix Layout",
// "Strides", "Matrix Descriptor Format", wgmma.mma_async, wgmma.fence, .commit_group, .wait_group).
//
// A product is asynchronous: from its issue until wgmma_wait covers its group, its sums may not be touched, nor its A
// in registers, nor the tiles in shared memory be written. It reads shared memory through the async proxy
// (ptx_barriers.cuh): tiles written by threads need proxy_fence_shared, those of tensor copies do not.
//   hold(sums) ...; wgmma_fence(); wgmma(...) for each k; wgmma_commit(); wgmma_wait<0>(); hold(sums);
// All threads of the warpgroup must come to each of these words.
#pragma once

#include "device/dtype.cuh"
#include "device/ptx_barriers.cuh"
#include "device/tensor_map.cuh"
#include "device/words.cuh"

#include <type_traits>

#if defined(IGF_SIMT)

#include "simt/device/ptx_wgmma.h"

#else

namespace igf::device::ptx {

// Where a tile stands and how it lies, as wgmma takes it ("Matrix Descriptor Format", "Canonical Layouts"). All in bytes,
// multiples of 16. The tile is made of patterns of 8 rows of the swizzle's width (128 bytes for k128), laid out as tensor
// copies do; each pattern stands on its size (1024 bytes for k128, 512 for k64, 256 for k32), so both distances are
// multiples of it. `shared` is the tile's first element.
//   K dense in memory ("K-major"): rows are of M or N. `stride` from 8 rows to the next 8; `leading` is not used (0).
//     The next 16 elements of k: 32 bytes further within the row.
//   M or N dense ("MN-major", transposed): rows are of k. `stride` from 8 rows of k to the next 8; `leading` from 64
//     elements of M or N (k128; 32 for k64, 16 for k32) to the next as many. The next 16 elements of k: two patterns
//     further, where those lie one behind the other.
// Without a swizzle a pattern is 8 rows of 16 bytes, the tile stands on 16 bytes, and the distances mean otherwise:
//   K dense: `stride` from 8 rows to the next 8, `leading` from 8 elements of k to the next 8.
//   M or N dense: `stride` from 8 elements of M or N to the next 8, `leading` from 8 rows of k to the next 8.
IGF_DEVICE uint64_t wgmma_tile(const void* shared, int leading, int stride, Swizzle swizzle IGF_SITE_PARAMETER) {
  const uint64_t address = shared_address(shared);
  const uint64_t mode = swizzle == Swizzle::k128 ? 1 : swizzle == Swizzle::k64 ? 2 : swizzle == Swizzle::k32 ? 3 : 0;
  return ((address & 0x3ffff) >> 4) | (static_cast<uint64_t>(leading) >> 4) << 16 |
         (static_cast<uint64_t>(stride) >> 4) << 32 | mode << 62;
}

// The same tile `bytes` further on (a multiple of 16).
IGF_DEVICE uint64_t wgmma_advance(uint64_t tile, int bytes IGF_SITE_PARAMETER) {
  return tile + (static_cast<uint64_t>(bytes) >> 4);
}

// wgmma.fence.sync.aligned: before the first product, and whenever threads have touched its sums or its A in registers.
IGF_DEVICE void wgmma_fence(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// wgmma.commit_group.sync.aligned: the products since the last group become a group.
IGF_DEVICE void wgmma_commit(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// wgmma.wait_group.sync.aligned: until at most the kPending latest groups are under way.
template <int kPending>
IGF_DEVICE void wgmma_wait(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0 && kPending <= 7);
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

// Keeps the compiler from moving uses of these registers across this place: it does not know that a product still
// writes or reads them. Say it of sums before the fence and after the wait, of A in registers after the wait.
template <typename T, int kCount>
IGF_DEVICE void hold(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_integral_v<T>) {
      asm volatile("" : "+r"(registers[i])::"memory");
    } else {
      asm volatile("" : "+f"(registers[i])::"memory");
    }
  }
}

// sums = a b, or sums += a b with `add`: A 64 x 16, B 16 x kN, sums f32 64 x kN; T = bfloat16 or half.
// Thread t of the warpgroup, with warp w = t / 32, g = t % 32 / 4 and c = t % 4, holds in sums[4 j + 2 h + i] the element
// (16 w + g + 8 h, 8 j + 2 c + i); of A in registers, in a[k], what mma_m16n8k16's lane does of rows 16 w to 16 w + 15
// (ptx.cuh). kTransposeA, kTransposeB: the tile in shared memory has M or N dense.
// wgmma.mma_async.sync.aligned.m64n{64,80,96,128}k16.f32.{bf16,f16}.{bf16,f16}
template <typename T, int kN, bool kTransposeA = false, bool kTransposeB = false>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], uint64_t a, uint64_t b, bool add IGF_SITE_PARAMETER);
template <typename T, int kN, bool kTransposeB = false>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool add IGF_SITE_PARAMETER);

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The text and the operands of the two words, by the number of sums of a thread.
#define IGF_WGMMA_D64 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
#define IGF_WGMMA_SUMS64 \
  "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]), \
  "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
  "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]), \
  "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
  "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]), \
  "+f"(sums[30]), "+f"(sums[31])
#define IGF_WGMMA_D80 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39}, "
#define IGF_WGMMA_SUMS80 \
  "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]), \
  "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
  "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]), \
  "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
  "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]), \
  "+f"(sums[30]), "+f"(sums[31]), "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
  "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39])
#define IGF_WGMMA_D96 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
#define IGF_WGMMA_SUMS96 \
  "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]), \
  "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
  "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]), \
  "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
  "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]), \
  "+f"(sums[30]), "+f"(sums[31]), "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
  "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), "+f"(sums[40]), "+f"(sums[41]), \
  "+f"(sums[42]), "+f"(sums[43]), "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47])
#define IGF_WGMMA_D128 \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define IGF_WGMMA_SUMS128 \
  "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]), \
  "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]), \
  "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]), \
  "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]), \
  "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]), \
  "+f"(sums[30]), "+f"(sums[31]), "+f"(sums[32]), "+f"(sums[33]), "+f"(sums[34]), "+f"(sums[35]), \
  "+f"(sums[36]), "+f"(sums[37]), "+f"(sums[38]), "+f"(sums[39]), "+f"(sums[40]), "+f"(sums[41]), \
  "+f"(sums[42]), "+f"(sums[43]), "+f"(sums[44]), "+f"(sums[45]), "+f"(sums[46]), "+f"(sums[47]), \
  "+f"(sums[48]), "+f"(sums[49]), "+f"(sums[50]), "+f"(sums[51]), "+f"(sums[52]), "+f"(sums[53]), \
  "+f"(sums[54]), "+f"(sums[55]), "+f"(sums[56]), "+f"(sums[57]), "+f"(sums[58]), "+f"(sums[59]), \
  "+f"(sums[60]), "+f"(sums[61]), "+f"(sums[62]), "+f"(sums[63])

// The last operand but the immediates is the predicate of `add`; immediates: signs of A and B, then what is transposed.
#define IGF_WGMMA_TILES(n, type, c0, c1, c2, c3, c4)                                                          \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #c2 ", 0;\n"                                           \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " " IGF_WGMMA_D##n "%" #c0 ", %" #c1 \
               ", add, 1, 1, %" #c3 ", %" #c4 ";\n}\n"                                                        \
               : IGF_WGMMA_SUMS##n                                                                            \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposeA), "n"(kTransposeB)               \
               : "memory")
#define IGF_WGMMA_REGISTERS(n, type, c0, c1, c2, c3, c4, c5, c6)                                              \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #c5 ", 0;\n"                                           \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " " IGF_WGMMA_D##n "{%" #c0 ", %" #c1 \
               ", %" #c2 ", %" #c3 "}, %" #c4 ", add, 1, 1, %" #c6 ";\n}\n"                                   \
               : IGF_WGMMA_SUMS##n                                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTransposeB) \
               : "memory")

template <typename T, int kN, bool kTransposeA, bool kTransposeB>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], uint64_t a, uint64_t b, bool add IGF_SITE_PARAMETER) {
  static_assert(kN == 64 || kN == 80 || kN == 96 || kN == 128);
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, half>);
  constexpr bool kBfloat16 = std::is_same_v<T, bfloat16>;
  if constexpr (kN == 64 && kBfloat16) {
    IGF_WGMMA_TILES(64, "bf16", 32, 33, 34, 35, 36);
  } else if constexpr (kN == 64) {
    IGF_WGMMA_TILES(64, "f16", 32, 33, 34, 35, 36);
  } else if constexpr (kN == 80 && kBfloat16) {
    IGF_WGMMA_TILES(80, "bf16", 40, 41, 42, 43, 44);
  } else if constexpr (kN == 80) {
    IGF_WGMMA_TILES(80, "f16", 40, 41, 42, 43, 44);
  } else if constexpr (kN == 96 && kBfloat16) {
    IGF_WGMMA_TILES(96, "bf16", 48, 49, 50, 51, 52);
  } else if constexpr (kN == 96) {
    IGF_WGMMA_TILES(96, "f16", 48, 49, 50, 51, 52);
  } else if constexpr (kN == 128 && kBfloat16) {
    IGF_WGMMA_TILES(128, "bf16", 64, 65, 66, 67, 68);
  } else if constexpr (kN == 128) {
    IGF_WGMMA_TILES(128, "f16", 64, 65, 66, 67, 68);
  }
}

template <typename T, int kN, bool kTransposeB>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool add IGF_SITE_PARAMETER) {
  static_assert(kN == 64 || kN == 80 || kN == 96 || kN == 128);
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, half>);
  constexpr bool kBfloat16 = std::is_same_v<T, bfloat16>;
  if constexpr (kN == 64 && kBfloat16) {
    IGF_WGMMA_REGISTERS(64, "bf16", 32, 33, 34, 35, 36, 37, 38);
  } else if constexpr (kN == 64) {
    IGF_WGMMA_REGISTERS(64, "f16", 32, 33, 34, 35, 36, 37, 38);
  } else if constexpr (kN == 80 && kBfloat16) {
    IGF_WGMMA_REGISTERS(80, "bf16", 40, 41, 42, 43, 44, 45, 46);
  } else if constexpr (kN == 80) {
    IGF_WGMMA_REGISTERS(80, "f16", 40, 41, 42, 43, 44, 45, 46);
  } else if constexpr (kN == 96 && kBfloat16) {
    IGF_WGMMA_REGISTERS(96, "bf16", 48, 49, 50, 51, 52, 53, 54);
  } else if constexpr (kN == 96) {
    IGF_WGMMA_REGISTERS(96, "f16", 48, 49, 50, 51, 52, 53, 54);
  } else if constexpr (kN == 128 && kBfloat16) {
    IGF_WGMMA_REGISTERS(128, "bf16", 64, 65, 66, 67, 68, 69, 70);
  } else if constexpr (kN == 128) {
    IGF_WGMMA_REGISTERS(128, "f16", 64, 65, 66, 67, 68, 69, 70);
  }
}

#else

template <typename T, int kN, bool kTransposeA, bool kTransposeB>
IGF_DEVICE void wgmma(float (&)[kN / 2], uint64_t, uint64_t, bool) {}
template <typename T, int kN, bool kTransposeB>
IGF_DEVICE void wgmma(float (&)[kN / 2], const uint32_t (&)[4], uint64_t, bool) {}

#endif

}  // namespace igf::device::ptx

#endif  // IGF_SIMT
