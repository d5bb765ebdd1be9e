// The emulator's half of device/ptx.cuh: the same words, as calls.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "simt/access.h"
#include "simt/ptx_words.h"
#include "simt/sync.h"

namespace igf::device::ptx {

namespace detail {

// A GPU's .ftz: a subnormal number is zero of the same sign.
IGF_DEVICE float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

template <typename T>
constexpr simt::MmaInput input_of() {
  static_assert(std::is_same_v<T, bfloat16> || std::is_same_v<T, half>);
  return std::is_same_v<T, bfloat16> ? simt::MmaInput::kBfloat16 : simt::MmaInput::kHalf;
}

}  // namespace detail

IGF_DEVICE float ex2_approx(float x) { return detail::flushed(std::exp2(detail::flushed(x))); }
IGF_DEVICE float tanh_approx(float x) { return std::tanh(x); }

enum class Cache { kBothLevels, kSecondLevel };

template <int kBytes, Cache kCache = kBytes == 16 ? Cache::kSecondLevel : Cache::kBothLevels>
IGF_DEVICE void cp_async_zero_fill(void* shared, const void* global, int source_bytes IGF_SITE_PARAMETER) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  static_assert(kCache == Cache::kBothLevels || kBytes == 16, "cp.async.cg copies 16 bytes");
  simt::copy_async(shared, global, kBytes, source_bytes IGF_SITE);
}
template <int kBytes, Cache kCache = kBytes == 16 ? Cache::kSecondLevel : Cache::kBothLevels>
IGF_DEVICE void cp_async(void* shared, const void* global IGF_SITE_PARAMETER) {
  cp_async_zero_fill<kBytes, kCache>(shared, global, kBytes IGF_SITE);
}
IGF_DEVICE void cp_async_commit(IGF_ONLY_SITE_PARAMETER) { simt::copy_commit(IGF_ONLY_SITE); }
template <int kPending>
IGF_DEVICE void cp_async_wait(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0);
  simt::copy_wait(kPending IGF_SITE);
}
IGF_DEVICE void cp_async_wait_all(IGF_ONLY_SITE_PARAMETER) { simt::copy_wait_all(IGF_ONLY_SITE); }

template <int kMatrices, bool kTransposed = false>
IGF_DEVICE void ldmatrix(uint32_t (&registers)[kMatrices], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  simt::load_matrix(registers, kMatrices, kTransposed, shared IGF_SITE);
}

// As on the newest target.
inline constexpr bool kHasStmatrix = true;

template <int kMatrices, bool kTransposed = false>
IGF_DEVICE void stmatrix(void* shared, const uint32_t (&registers)[kMatrices] IGF_SITE_PARAMETER) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  simt::store_matrix(shared, registers, kMatrices, kTransposed IGF_SITE);
}

template <typename T>
IGF_DEVICE void mma_m16n8k16(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] IGF_SITE_PARAMETER) {
  simt::multiply_matrix(detail::input_of<T>(), sums, a, b IGF_SITE);
}

IGF_DEVICE void named_barrier_sync(int barrier, int threads IGF_SITE_PARAMETER) {
  simt::named_barrier_sync(barrier, threads IGF_SITE);
}
IGF_DEVICE void named_barrier_arrive(int barrier, int threads IGF_SITE_PARAMETER) {
  simt::named_barrier_arrive(barrier, threads IGF_SITE);
}

IGF_DEVICE uint32_t load_acquire(const uint32_t* place IGF_SITE_PARAMETER) {
  return simt::ordered_access(const_cast<uint32_t*>(place), 0, simt::Word::kLoadAcquire IGF_SITE);
}
IGF_DEVICE void store_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  simt::ordered_access(place, value, simt::Word::kStoreRelease IGF_SITE);
}
IGF_DEVICE uint32_t add_acquire_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  return simt::ordered_access(place, value, simt::Word::kAddAcquireRelease IGF_SITE);
}
IGF_DEVICE void add_release(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  simt::ordered_access(place, value, simt::Word::kAddRelease IGF_SITE);
}

template <typename T>
IGF_DEVICE uint32_t pack_pair(float low, float high) {
  static_assert(sizeof(T) == 2);
  return __builtin_bit_cast(uint16_t, from_float<T>(low)) |
         static_cast<uint32_t>(__builtin_bit_cast(uint16_t, from_float<T>(high))) << 16;
}

IGF_DEVICE void prefetch_l2(const void* IGF_SITE_PARAMETER) { simt::prefetch(IGF_ONLY_SITE); }

}  // namespace igf::device::ptx
