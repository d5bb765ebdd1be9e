// The emulator's half of device/words.cuh: the same words, as calls.
#pragma once

#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/access.h"
#include "simt/shared.h"
#include "simt/sync.h"

// Copies and fills that the compiler makes by a call, or the source by its word, are checked like other accesses.
extern "C" {
void* memcpy(void*, const void*, std::size_t) noexcept __asm__("igf_simt_memcpy");
void* memset(void*, int, std::size_t) noexcept __asm__("igf_simt_memset");
void* memmove(void*, const void*, std::size_t) noexcept __asm__("igf_simt_memmove");
}

#define IGF_DEVICE inline __attribute__((always_inline))
// Before each kernel the compiler leaves as many empty instructions as its blocks may have threads, and lists where they
// begin: that is how launch() knows the bound of a kernel, of each instance of a template too (simt/bounds.h). Static:
// of functions that several files share the linker throws all but one away, and with them a file's whole list. For the
// same reason a function in a header that launches kernels of that header must be static too: the compiler may put a
// kernel that nobody else uses beside it.
#define IGF_FIRST(first, ...) (first)
#define IGF_KERNEL(...) \
  __attribute__((patchable_function_entry(IGF_FIRST(__VA_ARGS__, 0), IGF_FIRST(__VA_ARGS__, 0)))) static void

#define IGF_GRID_CONSTANT

#define IGF_SHARED_ARRAY(type, name, count)                                                         \
  type(&name)[count] = *reinterpret_cast<type(*)[count]>(::igf::simt::shared_array(                 \
      #name, __PRETTY_FUNCTION__, sizeof(type[count]), static_cast<uint32_t>(sizeof(type)), ::igf::simt::Site::here()))

#define IGF_DYNAMIC_SHARED(name) \
  unsigned char* const name = ::igf::simt::dynamic_shared(::igf::simt::Site::here())

#define IGF_ONLY_SITE_PARAMETER [[maybe_unused]] ::igf::simt::Site igf_site = ::igf::simt::Site::here()
#define IGF_ONLY_SITE igf_site
#define IGF_SITE_PARAMETER , IGF_ONLY_SITE_PARAMETER
#define IGF_SITE , igf_site

namespace igf::device {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

using simt::block_x;
using simt::block_y;
using simt::grid_x;
using simt::grid_y;
using simt::lane_index;
using simt::thread_index;
using simt::thread_x;
using simt::thread_y;

IGF_DEVICE uint32_t shared_address(const void* pointer IGF_SITE_PARAMETER) {
  return simt::shared_address(pointer IGF_SITE);
}

IGF_DEVICE void block_barrier(IGF_ONLY_SITE_PARAMETER) { simt::block_barrier(IGF_ONLY_SITE); }
IGF_DEVICE bool block_barrier_or(bool predicate IGF_SITE_PARAMETER) {
  return simt::block_barrier_or(predicate IGF_SITE);
}
IGF_DEVICE int block_barrier_count(bool predicate IGF_SITE_PARAMETER) {
  return simt::block_barrier_count(predicate IGF_SITE);
}
IGF_DEVICE void warp_barrier(uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) { simt::warp_barrier(lanes IGF_SITE); }

namespace detail {

template <typename T>
IGF_DEVICE T shuffled(simt::Word word, T value, int operand, uint32_t lanes IGF_SITE_PARAMETER) {
  static_assert((std::is_integral_v<T> || std::is_floating_point_v<T>) && (sizeof(T) == 4 || sizeof(T) == 8));
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const uint64_t bits = simt::shuffle(word, __builtin_bit_cast(Bits, value), operand, lanes IGF_SITE);
  return __builtin_bit_cast(T, static_cast<Bits>(bits));
}

}  // namespace detail

template <typename T>
IGF_DEVICE T shuffle_xor(T value, int mask, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return detail::shuffled(simt::Word::kShuffleXor, value, mask, lanes IGF_SITE);
}
template <typename T>
IGF_DEVICE T shuffle(T value, int source, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return detail::shuffled(simt::Word::kShuffle, value, source, lanes IGF_SITE);
}
template <typename T>
IGF_DEVICE T shuffle_up(T value, int delta, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return detail::shuffled(simt::Word::kShuffleUp, value, delta, lanes IGF_SITE);
}
template <typename T>
IGF_DEVICE T shuffle_down(T value, int delta, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return detail::shuffled(simt::Word::kShuffleDown, value, delta, lanes IGF_SITE);
}

IGF_DEVICE uint32_t ballot(bool predicate, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return simt::vote(simt::Word::kBallot, predicate, lanes IGF_SITE);
}
IGF_DEVICE bool any_lane(bool predicate, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return simt::vote(simt::Word::kAnyLane, predicate, lanes IGF_SITE) != 0;
}
IGF_DEVICE bool all_lanes(bool predicate, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return simt::vote(simt::Word::kAllLanes, predicate, lanes IGF_SITE) == lanes;
}
IGF_DEVICE uint32_t match_lanes(uint32_t value, uint32_t lanes = kAllLanes IGF_SITE_PARAMETER) {
  return simt::vote(simt::Word::kMatchLanes, value, lanes IGF_SITE);
}

IGF_DEVICE int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
IGF_DEVICE int find_first_bit(uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)); }
IGF_DEVICE int leading_zeros(uint32_t bits) { return bits == 0 ? 32 : __builtin_clz(bits); }

IGF_DEVICE void block_fence(IGF_ONLY_SITE_PARAMETER) { simt::fence_of(simt::Word::kBlockFence, IGF_ONLY_SITE); }
IGF_DEVICE void device_fence(IGF_ONLY_SITE_PARAMETER) { simt::fence_of(simt::Word::kDeviceFence, IGF_ONLY_SITE); }

namespace detail {

template <typename T>
constexpr simt::Number number_of() {
  if constexpr (std::is_same_v<T, float>) {
    return simt::Number::kFloat;
  } else {
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    if constexpr (sizeof(T) == 4) return std::is_signed_v<T> ? simt::Number::kInt32 : simt::Number::kUint32;
    return std::is_signed_v<T> ? simt::Number::kInt64 : simt::Number::kUint64;
  }
}

template <typename T>
IGF_DEVICE T changed(simt::Word word, T* place, T value IGF_SITE_PARAMETER) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const uint64_t before = simt::change_memory(place, __builtin_bit_cast(Bits, value), number_of<T>(), word IGF_SITE);
  return __builtin_bit_cast(T, static_cast<Bits>(before));
}

}  // namespace detail

template <typename T>
IGF_DEVICE T atomic_add(T* place, T value IGF_SITE_PARAMETER) {
  return detail::changed(simt::Word::kAtomicAdd, place, value IGF_SITE);
}
template <typename T>
IGF_DEVICE T atomic_max(T* place, T value IGF_SITE_PARAMETER) {
  static_assert(std::is_integral_v<T>);
  return detail::changed(simt::Word::kAtomicMax, place, value IGF_SITE);
}
template <typename T>
IGF_DEVICE T atomic_min(T* place, T value IGF_SITE_PARAMETER) {
  static_assert(std::is_integral_v<T>);
  return detail::changed(simt::Word::kAtomicMin, place, value IGF_SITE);
}
template <typename T>
IGF_DEVICE T atomic_exchange(T* place, T value IGF_SITE_PARAMETER) {
  static_assert(std::is_integral_v<T>);
  return detail::changed(simt::Word::kAtomicExchange, place, value IGF_SITE);
}
IGF_DEVICE uint32_t atomic_or(uint32_t* place, uint32_t value IGF_SITE_PARAMETER) {
  return detail::changed(simt::Word::kAtomicOr, place, value IGF_SITE);
}

IGF_DEVICE void let_others_run(IGF_ONLY_SITE_PARAMETER) { simt::let_others_run(IGF_ONLY_SITE); }
IGF_DEVICE void trap(IGF_ONLY_SITE_PARAMETER) { simt::trap(IGF_ONLY_SITE); }

}  // namespace igf::device
