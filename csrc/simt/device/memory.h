// The emulator's half of device/memory.cuh.
#pragma once

#include "simt/access.h"

namespace igf::device {

namespace detail {

template <typename T>
IGF_DEVICE T read(simt::Word word, const T* place IGF_SITE_PARAMETER) {
  static_assert(sizeof(T) == alignof(T) && sizeof(T) <= 16, "one access moves 1, 2, 4, 8 or 16 bytes");
  T value;
  simt::read_memory(&value, place, sizeof(T), word IGF_SITE);
  return value;
}

template <typename T>
IGF_DEVICE void write(simt::Word word, T* place, const T& value IGF_SITE_PARAMETER) {
  static_assert(sizeof(T) == alignof(T) && sizeof(T) <= 16, "one access moves 1, 2, 4, 8 or 16 bytes");
  simt::write_memory(place, &value, sizeof(T), word IGF_SITE);
}

}  // namespace detail

template <typename T>
IGF_DEVICE T load(const T* place IGF_SITE_PARAMETER) {
  return detail::read(simt::Word::kLoad, place IGF_SITE);
}
template <typename T>
IGF_DEVICE void store(T* place, T value IGF_SITE_PARAMETER) {
  detail::write(simt::Word::kStore, place, value IGF_SITE);
}
template <typename T>
IGF_DEVICE T load_once(const T* place IGF_SITE_PARAMETER) {
  return detail::read(simt::Word::kLoadOnce, place IGF_SITE);
}
template <typename T>
IGF_DEVICE void store_once(T* place, T value IGF_SITE_PARAMETER) {
  detail::write(simt::Word::kStoreOnce, place, value IGF_SITE);
}
template <typename T>
IGF_DEVICE T load_shared_by_blocks(const T* place IGF_SITE_PARAMETER) {
  return detail::read(simt::Word::kLoadSharedByBlocks, place IGF_SITE);
}

}  // namespace igf::device
