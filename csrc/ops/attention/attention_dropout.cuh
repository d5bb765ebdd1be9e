// Which elements of the softmax dropout keeps, drawn on the device; the contract stands in attention.h.
//
//   host     const Dropout dropout = dropout_of(call.shape, call.dropout_seed);      // a kernel's parameter
//   kernel   if (dropout.seed != nullptr) {
//              const philox::Key key = philox::key_of(load(dropout.seed));
//              kept_of_four(dropout, key, n, head, j) >> g & 1      // is key j + 16 g kept? g in [0, 4), j % 64 < 16
//            }
// What is kept is multiplied by dropout.factor.
#pragma once

#include <algorithm>
#include <cmath>

#include "device/philox.h"
#include "device/words.cuh"
#include "ops/attention/attention.h"

namespace igf::attention {

struct Dropout {
  const int64_t* seed;  // on the device; null: everything is kept
  uint32_t threshold;   // words below it drop their element
  float factor;         // 1 / (1 - p); 1 without dropout
};

inline Dropout dropout_of(const AttentionShape& shape, const int64_t* seed) {
  if (seed == nullptr) return {nullptr, 0, 1.0f};
  const double threshold = std::round(static_cast<double>(shape.dropout_p) * 4294967296.0);
  return {seed, static_cast<uint32_t>(std::min(threshold, 4294967295.0)), 1.0f / (1.0f - shape.dropout_p)};
}

// Bit g: whether query row n (of the whole batch) of a head keeps key `first + 16 g` of its sequence; first % 64 < 16.
IGF_DEVICE uint32_t kept_of_four(const Dropout& dropout, philox::Key key, int64_t n, int head, int first) {
  const uint32_t counter = static_cast<uint32_t>(first / 64 * 16 + first % 16);
  const philox::Block words = philox::draw(
      {counter, static_cast<uint32_t>(n), static_cast<uint32_t>(head), philox::kDropout}, key);
  return (words.w0 >= dropout.threshold ? 1u : 0u) | (words.w1 >= dropout.threshold ? 2u : 0u) |
         (words.w2 >= dropout.threshold ? 4u : 0u) | (words.w3 >= dropout.threshold ? 8u : 0u);
}

}  // namespace igf::attention
