// Scores, softmax and weighted sums of attention_decode, and rows in and out of them.
#include "ops/attention_decode/attention_decode_tiles.h"

#include <algorithm>
#include <cstring>

#include "cpu/clones.h"
#include "device/math.h"

namespace igf::decode {
namespace {

constexpr float kMinusInfinity = -__builtin_huge_valf();

// QUERIES x KEYS scores at once: summing the lanes of one of them at a time would cost several times its products.
// WHOLE: the width is a multiple of kLanes.
template <int QUERIES, int KEYS, bool WHOLE, typename T>
IGF_INLINE void score_tile(const T* const (&keys)[KEYS], const float* queries, int64_t query_stride, int64_t width,
                           float (&scores)[kLanes]) {
  Lanes sums[QUERIES * KEYS] = {};
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) {
    Lanes key[KEYS];
#pragma GCC unroll 16
    for (int k = 0; k < KEYS; ++k) load(keys[k] + d, key[k]);
#pragma GCC unroll 16
    for (int q = 0; q < QUERIES; ++q) {
      Lanes query;
      load(queries + q * query_stride + d, query);
#pragma GCC unroll 16
      for (int k = 0; k < KEYS; ++k) sums[q * KEYS + k] += query * key[k];
    }
  }
  if (!WHOLE && d < width) {
    Lanes query;
#pragma GCC unroll 16
    for (int q = 0; q < QUERIES; ++q) {
      load(queries + q * query_stride + d, query);
#pragma GCC unroll 16
      for (int k = 0; k < KEYS; ++k) {
        Lanes key;
        load_some(keys[k] + d, width - d, key);
        sums[q * KEYS + k] += query * key;
      }
    }
  }
  sum_lanes(sums);
  std::memcpy(scores, &sums[0], sizeof scores);
}

template <typename T>
IGF_INLINE void score_body(const Run<T>& run, const float* query, float* scores) {
  for (int64_t j = 0; j < run.count; j += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, run.count - j);
    const T* keys[kLanes];
    // Where there are fewer keys the last one is taken again, and its score is not stored.
    for (int64_t k = 0; k < kLanes; ++k) keys[k] = run.from + (j + (k < count ? k : count - 1)) * run.stride;
    alignas(64) float found[kLanes];
    if (run.width % kLanes == 0) {
      score_tile<1, kLanes, true>(keys, query, 0, run.width, found);
    } else {
      score_tile<1, kLanes, false>(keys, query, 0, run.width, found);
    }
    if (count == kLanes) {
      std::memcpy(scores + j, found, sizeof found);
    } else {
      for (int64_t k = 0; k < count; ++k) scores[j + k] = found[k];
    }
  }
}

// out[q][d] += sum over j of probabilities[q][j] * value j [d] for QUERIES x (VECTORS * kLanes) numbers, kept in
// registers meanwhile. The run is summed by itself: one chain of additions over all values would lose more.
template <int QUERIES, int VECTORS, typename T>
IGF_INLINE void gather_tile(const T* values, int64_t stride, int64_t count, const float* probabilities, int64_t pitch,
                            float* out, int64_t out_stride) {
  Lanes sums[QUERIES * VECTORS] = {};
  for (int64_t j = 0; j < count; ++j) {
    Lanes value[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) load(values + j * stride + v * kLanes, value[v]);
#pragma GCC unroll 16
    for (int q = 0; q < QUERIES; ++q) {
      const float share = probabilities[q * pitch + j];
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[q * VECTORS + v] += share * value[v];
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < QUERIES; ++q) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) {
      Lanes before;
      float* to = out + q * out_stride + v * kLanes;
      load(to, before);
      before += sums[q * VECTORS + v];
      std::memcpy(to, &before, sizeof before);
    }
  }
}

template <typename T>
IGF_INLINE void gather_body(const Run<T>& run, const float* probabilities, float* out) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= run.width; d += 4 * kLanes) {
    gather_tile<1, 4>(run.from + d, run.stride, run.count, probabilities, 0, out + d, 0);
  }
  for (; d + kLanes <= run.width; d += kLanes) {
    gather_tile<1, 1>(run.from + d, run.stride, run.count, probabilities, 0, out + d, 0);
  }
  if (d == run.width) return;
  Lanes sum = {}, value;
  for (int64_t j = 0; j < run.count; ++j) {
    load_some(run.from + j * run.stride + d, run.width - d, value);
    sum += probabilities[j] * value;
  }
  for (int64_t l = 0; d + l < run.width; ++l) out[d + l] += sum[l];
}

template <typename T>
IGF_INLINE void widen_body(const Run<T>& run, float* to) {
  const int64_t pitch = padded(run.width);
  for (int64_t j = 0; j < run.count; ++j) {
    const T* from = run.from + j * run.stride;
    Lanes lanes;
    int64_t d = 0;
    for (; d + kLanes <= run.width; d += kLanes) {
      load(from + d, lanes);
      std::memcpy(to + j * pitch + d, &lanes, sizeof lanes);
    }
    if (d == run.width) continue;
    load_some(from + d, run.width - d, lanes);
    std::memcpy(to + j * pitch + d, &lanes, sizeof lanes);
  }
}

template <typename T>
IGF_INLINE void read_body(const T* from, float* to, int64_t count, float factor) {
  for (int64_t d = 0; d < count; ++d) to[d] = float(from[d]) * factor;
}

template <typename T>
IGF_INLINE void write_body(const float* from, T* to, int64_t count, float factor) {
  for (int64_t d = 0; d < count; ++d) to[d] = T(from[d] * factor);
}

}  // namespace

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_DECODE_TILES(T)                                                                                \
  IGF_CLONES void score(const Run<T>& keys, const float* query, float* scores) {                           \
    score_body(keys, query, scores);                                                                       \
  }                                                                                                        \
  IGF_CLONES void gather(const Run<T>& values, const float* probabilities, float* out) {                   \
    gather_body(values, probabilities, out);                                                               \
  }                                                                                                        \
  IGF_CLONES void widen(const Run<T>& run, float* to) { widen_body(run, to); }                             \
  IGF_CLONES void read(const T* __restrict from, float* __restrict to, int64_t count, float factor) {      \
    read_body(from, to, count, factor);                                                                    \
  }                                                                                                        \
  IGF_CLONES void write(const float* __restrict from, T* __restrict to, int64_t count, float factor) {     \
    write_body(from, to, count, factor);                                                                   \
  }
IGF_DECODE_TILES(float)
IGF_DECODE_TILES(bfloat16)
IGF_DECODE_TILES(half)
#undef IGF_DECODE_TILES

IGF_CLONES void score_together(const float* keys, int64_t count, int64_t padded_width, const float* queries,
                               float* scores, int64_t pitch) {
  constexpr int kKeys = kLanes / kTogether;
  for (int64_t j = 0; j < count; j += kKeys) {
    const float* some[kKeys];
    for (int64_t k = 0; k < kKeys; ++k) some[k] = keys + (j + k) * padded_width;
    alignas(64) float found[kLanes];
    score_tile<kTogether, kKeys, true>(some, queries, padded_width, padded_width, found);
    for (int64_t q = 0; q < kTogether; ++q) {
      std::memcpy(scores + q * pitch + j, found + q * kKeys, sizeof(float) * kKeys);
    }
  }
}

IGF_CLONES void gather_together(const float* values, int64_t count, int64_t padded_width, const float* probabilities,
                                int64_t pitch, float* out) {
  int64_t d = 0;
  for (; d + 4 * kLanes <= padded_width; d += 4 * kLanes) {
    gather_tile<kTogether, 4>(values + d, padded_width, count, probabilities, pitch, out + d, padded_width);
  }
  for (; d < padded_width; d += kLanes) {
    gather_tile<kTogether, 1>(values + d, padded_width, count, probabilities, pitch, out + d, padded_width);
  }
}

IGF_CLONES float softmax(float* scores, int64_t count) {
  alignas(64) float tops[kLanes], last[kLanes];
  const int64_t whole = count / kLanes * kLanes;
  // What is missing in the last vector weighs nothing.
  for (int64_t l = 0; l < kLanes; ++l) last[l] = whole + l < count ? scores[whole + l] : kMinusInfinity;
  for (int64_t l = 0; l < kLanes; ++l) tops[l] = last[l];
  for (int64_t j = 0; j < whole; j += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) tops[l] = scores[j + l] > tops[l] ? scores[j + l] : tops[l];
  }
  float top = kMinusInfinity;
  for (int64_t l = 0; l < kLanes; ++l) top = tops[l] > top ? tops[l] : top;
  Lanes sums[1] = {}, weights;
  for (int64_t j = 0; j < whole; j += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) scores[j + l] = math::exp(scores[j + l] - top);
    load(scores + j, weights);
    sums[0] += weights;
  }
  for (int64_t l = 0; l < kLanes; ++l) last[l] = math::exp(last[l] - top);
  load(last, weights);
  sums[0] += weights;
  for (int64_t j = whole; j < count; ++j) scores[j] = last[j - whole];
  sum_lanes(sums);
  return sums[0][0];
}

}  // namespace igf::decode
