// PTX words of sm_90 that order asynchronous work: barriers in shared memory that count arrivals and bytes, fences
// between the two ways to reach memory, and the register budget of a group of warps.
//
// Source: PTX ISA 9.0, "Parallel Synchronization and Communication Instructions: mbarrier", "membar / fence",
// "Miscellaneous Instructions: setmaxnreg". Below sm_90 nothing here may be reached: use it under
// `if constexpr (ptx::kHasTensorCopies)` or `ptx::kHasWgmma`.
//
// Generic proxy: what loads and stores of threads use. Async proxy: what tensor copies (ptx_bulk.cuh) and wgmma
// (ptx_wgmma.cuh) use. What the one wrote, the other sees only with a proxy fence in between (and the usual barriers);
// bytes that a tensor copy brought are seen by all who waited at its mbarrier, without a fence.
#pragma once

#include "device/words.cuh"

#if defined(IGF_SIMT)

#include "simt/device/ptx_barriers.h"

#else

namespace igf::device::ptx {

// Whether the target has mbarriers with byte counts and tensor copies (sm_90 and later), and wgmma and setmaxnreg as
// sm_90a has them (that target alone).
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr bool kHasTensorCopies = true;
#else
inline constexpr bool kHasTensorCopies = false;
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;
#endif

// An mbarrier is 8 bytes of shared memory: IGF_SHARED_ARRAY(uint64_t, full, kStages). Its phases are numbered from 0; a
// phase ends when its `arrivals` have come and all bytes that were announced for it have arrived. The next one then
// begins by itself, with the same number of arrivals.

// mbarrier.init.shared::cta.b64: by one thread, before mbarrier_init_fence and a block barrier.
IGF_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals IGF_SITE_PARAMETER) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// fence.mbarrier_init.release.cluster: makes the thread's new mbarriers known to the async proxy.
IGF_DEVICE void mbarrier_init_fence(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// mbarrier.arrive.shared::cta.b64: one arrival; releases what the thread wrote before.
IGF_DEVICE void mbarrier_arrive(uint64_t* barrier IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// mbarrier.arrive.expect_tx.shared::cta.b64: one arrival, and announces `bytes` that copies will bring in this phase.
IGF_DEVICE void mbarrier_arrive_expecting(uint64_t* barrier, int bytes IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}

// mbarrier.try_wait.parity.shared::cta.b64 until it succeeds: waits for the end of the phase whose number is even
// (parity 0) or odd (1), and acquires what its arrivals released. Waiting for parity 1 of a new barrier returns at once:
// so a producer finds all stages free in its first round.
IGF_DEVICE void mbarrier_wait(uint64_t* barrier, int parity IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "igf_again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra igf_again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

// fence.proxy.async.shared::cta / fence.proxy.async.global: orders the thread's generic accesses of shared / global
// memory before and after it with async ones after and before it.
IGF_DEVICE void proxy_fence_shared(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
IGF_DEVICE void proxy_fence_global(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

// setmaxnreg.dec / .inc.sync.aligned.u32, by all threads of a warp, the same in all warps of a warpgroup: from now on
// the thread has kRegisters registers, a multiple of 8 in [24, 256]. Claiming waits until others have released enough.
// The kernel's launch bound must be given, so that its count of registers at the start is fixed.
template <int kRegisters>
IGF_DEVICE void release_registers(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
IGF_DEVICE void claim_registers(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

}  // namespace igf::device::ptx

#endif  // IGF_SIMT
