// Reads and writes of global memory, and of shared memory where more than one element is moved.
//
// Kernels read and write global memory through these alone: on a CPU the emulator checks bounds and alignment here and
// counts bytes and sectors by the line that said the word. T is a scalar, or a Vector of 4, 8 or 16 bytes.
#pragma once

#include "device/words.cuh"

namespace igf::device {

template <typename T, int kLanes>
struct alignas(sizeof(T) * kLanes) Vector {
  T lanes[kLanes];
};

}  // namespace igf::device

#if defined(IGF_SIMT)

#include "simt/device/memory.h"

#else

namespace igf::device {

template <typename T>
IGF_DEVICE T load(const T* place) {
  return *place;
}

template <typename T>
IGF_DEVICE void store(T* place, T value) {
  *place = value;
}

namespace detail {

// One of the widths that a single instruction moves.
template <int kBytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned int;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

template <typename T, typename W>
IGF_DEVICE T from_word(W word) {
  static_assert(sizeof(T) == sizeof(W));
  return *reinterpret_cast<T*>(&word);
}

template <typename W, typename T>
IGF_DEVICE W to_word(T value) {
  static_assert(sizeof(T) == sizeof(W));
  return *reinterpret_cast<W*>(&value);
}

}  // namespace detail

// Global memory that the whole launch reads once: the caches keep nothing of it (evict first). Only the
// thread that has read it may write it during the launch.
template <typename T>
IGF_DEVICE T load_once(const T* place) {
  using W = typename detail::Word<sizeof(T)>::type;
  return detail::from_word<T>(__ldcs(reinterpret_cast<const W*>(place)));
}

// Global memory that nobody reads soon.
template <typename T>
IGF_DEVICE void store_once(T* place, T value) {
  using W = typename detail::Word<sizeof(T)>::type;
  __stcs(reinterpret_cast<W*>(place), detail::to_word<W>(value));
}

// Global memory that other blocks of this launch may have written: past the first-level cache, which does not see them.
template <typename T>
IGF_DEVICE T load_shared_by_blocks(const T* place) {
  using W = typename detail::Word<sizeof(T)>::type;
  return detail::from_word<T>(__ldcg(reinterpret_cast<const W*>(place)));
}

}  // namespace igf::device

#endif  // IGF_SIMT
