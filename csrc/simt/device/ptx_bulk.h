// The emulator's half of device/ptx_bulk.cuh: the same words, as calls.
#pragma once

#include "simt/access.h"
#include "simt/async_words.h"

namespace igf::device::ptx {

IGF_DEVICE void prefetch_tensor_map(const TensorMap& map IGF_SITE_PARAMETER) {
  simt::prefetch_tensor_map(map IGF_SITE);
}

template <int kDimensions>
IGF_DEVICE void load_tile(void* shared, const TensorMap& map, const int (&at)[kDimensions],
                          uint64_t* barrier IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
  simt::load_tile(shared, map, at, kDimensions, barrier IGF_SITE);
}
template <int kDimensions>
IGF_DEVICE void store_tile(const TensorMap& map, const int (&at)[kDimensions], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
  simt::store_tile(map, at, kDimensions, shared, simt::Word::kStoreTile IGF_SITE);
}
template <int kDimensions>
IGF_DEVICE void add_tile(const TensorMap& map, const int (&at)[kDimensions], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
  simt::store_tile(map, at, kDimensions, shared, simt::Word::kAddTile IGF_SITE);
}

IGF_DEVICE void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier IGF_SITE_PARAMETER) {
  simt::bulk_load(shared, global, bytes, barrier IGF_SITE);
}
IGF_DEVICE void bulk_add(float* global, const void* shared, int bytes IGF_SITE_PARAMETER) {
  simt::bulk_add(global, shared, bytes IGF_SITE);
}
IGF_DEVICE void bulk_commit(IGF_ONLY_SITE_PARAMETER) { simt::bulk_commit(IGF_ONLY_SITE); }
template <int kPending>
IGF_DEVICE void bulk_wait(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0);
  simt::bulk_wait(kPending, simt::Word::kBulkWait IGF_SITE);
}
template <int kPending>
IGF_DEVICE void bulk_wait_read(IGF_ONLY_SITE_PARAMETER) {
  static_assert(kPending >= 0);
  simt::bulk_wait(kPending, simt::Word::kBulkWaitRead IGF_SITE);
}

IGF_DEVICE void add_four(float* place, float a, float b, float c, float d IGF_SITE_PARAMETER) {
  const float values[4] = {a, b, c, d};
  simt::add_four(place, values IGF_SITE);
}

}  // namespace igf::device::ptx
