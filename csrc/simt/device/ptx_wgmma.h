// The emulator's half of device/ptx_wgmma.cuh: the same words, as calls.
#pragma once

#include "device/ptx.cuh"
#include "simt/wgmma_words.h"

namespace igf::device::ptx {

IGF_DEVICE uint64_t wgmma_tile(const void* shared, int leading, int stride, Swizzle swizzle IGF_SITE_PARAMETER) {
  static_assert(static_cast<int>(Swizzle::kNone) == 0 && static_cast<int>(Swizzle::k128) == 3);
  return simt::wgmma_tile(shared, leading, stride, static_cast<simt::WgmmaSwizzle>(swizzle) IGF_SITE);
}
IGF_DEVICE uint64_t wgmma_advance(uint64_t tile, int bytes IGF_SITE_PARAMETER) {
  return simt::wgmma_advance(tile, bytes IGF_SITE);
}

IGF_DEVICE void wgmma_fence(IGF_ONLY_SITE_PARAMETER) { simt::wgmma_fence(IGF_ONLY_SITE); }
IGF_DEVICE void wgmma_commit(IGF_ONLY_SITE_PARAMETER) { simt::wgmma_commit(IGF_ONLY_SITE); }
template <int kPending>
IGF_DEVICE void wgmma_wait(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0 && kPending <= 7);
  simt::wgmma_wait(kPending IGF_SITE);
}

// A compiler's matter: here arrays that a product was handed stay in memory.
template <typename T, int kCount>
IGF_DEVICE void hold(T (&)[kCount]) {}

template <typename T, int kN, bool kTransposeA = false, bool kTransposeB = false>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], uint64_t a, uint64_t b, bool add IGF_SITE_PARAMETER) {
  static_assert(kN == 64 || kN == 80 || kN == 96 || kN == 128);
  simt::wgmma({detail::input_of<T>(), kN, false, kTransposeA, kTransposeB}, {sums, nullptr, a, b, add} IGF_SITE);
}
template <typename T, int kN, bool kTransposeB = false>
IGF_DEVICE void wgmma(float (&sums)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool add IGF_SITE_PARAMETER) {
  static_assert(kN == 64 || kN == 80 || kN == 96 || kN == 128);
  simt::wgmma({detail::input_of<T>(), kN, true, false, kTransposeB}, {sums, a, 0, b, add} IGF_SITE);
}

}  // namespace igf::device::ptx
