// The emulator's half of device/ptx_barriers.cuh: the same words, as calls.
#pragma once

#include "simt/async_words.h"

namespace igf::device::ptx {

// What the targets of these words have; a launch on another architecture may not reach them.
inline constexpr bool kHasTensorCopies = true;
inline constexpr bool kHasWgmma = true;

IGF_DEVICE void mbarrier_init(uint64_t* barrier, int arrivals IGF_SITE_PARAMETER) {
  simt::mbarrier_init(barrier, arrivals IGF_SITE);
}
IGF_DEVICE void mbarrier_init_fence(IGF_ONLY_SITE_PARAMETER) { simt::mbarrier_init_fence(IGF_ONLY_SITE); }
IGF_DEVICE void mbarrier_arrive(uint64_t* barrier IGF_SITE_PARAMETER) { simt::mbarrier_arrive(barrier IGF_SITE); }
IGF_DEVICE void mbarrier_arrive_expecting(uint64_t* barrier, int bytes IGF_SITE_PARAMETER) {
  simt::mbarrier_arrive_expecting(barrier, bytes IGF_SITE);
}
IGF_DEVICE void mbarrier_wait(uint64_t* barrier, int parity IGF_SITE_PARAMETER) {
  simt::mbarrier_wait(barrier, parity IGF_SITE);
}

IGF_DEVICE void proxy_fence_shared(IGF_ONLY_SITE_PARAMETER) { simt::proxy_fence_shared(IGF_ONLY_SITE); }
IGF_DEVICE void proxy_fence_global(IGF_ONLY_SITE_PARAMETER) { simt::proxy_fence_global(IGF_ONLY_SITE); }

template <int kRegisters>
IGF_DEVICE void release_registers(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  simt::set_registers(kRegisters, simt::Word::kReleaseRegisters IGF_SITE);
}
template <int kRegisters>
IGF_DEVICE void claim_registers(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  simt::set_registers(kRegisters, simt::Word::kClaimRegisters IGF_SITE);
}

}  // namespace igf::device::ptx
