// attention_decode on the CPU: a task is a row, or some of its key heads when there are few rows. It walks the row's
// pages once for the keys and once for the values, as they lie in memory; every key that is read meets all query heads
// and new tokens that share it.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "device/math.h"
#include "ops/attention_decode/attention_decode.h"

namespace igf {
namespace {

constexpr int64_t kLanes = 16;
// Positions worked on at a time, at most.
constexpr int64_t kRun = 32;
// With fewer rows than this, a row's heads are shared out too.
constexpr int64_t kTasksEnough = 16;
// Cached numbers worth a thread's start.
constexpr int64_t kGrainElements = 32768;
constexpr float kMinusInfinity = -__builtin_huge_valf();

// The sum of lanes by halves: the same order on every CPU level, and shuffles instead of a chain of additions.
IGF_INLINE float sum_of(float* lanes) {
  for (int64_t step = kLanes / 2; step > 0; step /= 2) {
    for (int64_t l = 0; l < step; ++l) lanes[l] += lanes[l + step];
  }
  return lanes[0];
}

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// Results go through references: returned by value, vectors this wide would change the calling convention.
template <typename T>
IGF_INLINE void load(const T* from, Lanes& lanes) {
  for (int64_t l = 0; l < kLanes; ++l) lanes[l] = float(from[l]);
}

// Lane l of a becomes the sum of two lanes of a where bit BIT of l is 0, of two of b where it is 1.
template <int BIT, int... LANE>
IGF_INLINE void merge(Lanes& a, const Lanes& b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
  a = __builtin_shufflevector(a, b, (LANE & BIT ? LANE - BIT + int{kLanes} : LANE)...) +
      __builtin_shufflevector(a, b, (LANE & BIT ? LANE + int{kLanes} : LANE + BIT)...);
#else
  typedef int32_t Index __attribute__((vector_size(kLanes * sizeof(int32_t))));
  const Index low = {(LANE & BIT ? LANE - BIT + int{kLanes} : LANE)...};
  const Index high = {(LANE & BIT ? LANE + int{kLanes} : LANE + BIT)...};
  a = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#endif
}

// scores[j] = query . keys[j] for the first `count` of kLanes keys. Summing the lanes of one key at a time would cost
// several times its products; kLanes keys are summed together, by a tree of merges whose last leaves key l in lane l.
template <typename T>
IGF_INLINE void score_block(const T* keys, int64_t stride, int64_t count, const float* query, int64_t width,
                            float* scores) {
  Lanes sums[kLanes];
  for (int64_t k = 0; k < kLanes; ++k) {
    // Where there are fewer keys the last one is taken again, and its score is not stored.
    const T* key = keys + (k < count ? k : count - 1) * stride;
    Lanes sum = {}, a, b;
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) {
      load(query + d, a);
      load(key + d, b);
      sum += a * b;
    }
    for (; d < width; ++d) sum[0] += query[d] * float(key[d]);
    sums[k] = sum;
  }
  constexpr auto lanes = std::make_integer_sequence<int, kLanes>();
  for (int64_t k = 0; k < kLanes; k += 2) merge<1>(sums[k], sums[k + 1], lanes);
  for (int64_t k = 0; k < kLanes; k += 4) merge<2>(sums[k], sums[k + 2], lanes);
  for (int64_t k = 0; k < kLanes; k += 8) merge<4>(sums[k], sums[k + 4], lanes);
  merge<8>(sums[0], sums[8], lanes);
  if (count == kLanes) {
    std::memcpy(scores, &sums[0], sizeof(Lanes));
  } else {
    for (int64_t j = 0; j < count; ++j) scores[j] = sums[0][j];
  }
}

// scores[i * pitch + j] = queries[i] . keys[j] for `count` keys in a row of one page.
template <typename T>
IGF_INLINE void score_body(const T* keys, int64_t stride, int64_t count, const float* queries, int64_t query_count,
                           int64_t width, float* scores, int64_t pitch) {
  for (int64_t i = 0; i < query_count; ++i) {
    for (int64_t j = 0; j < count; j += kLanes) {
      score_block(keys + j * stride, stride, std::min(kLanes, count - j), queries + i * width, width,
                  scores + i * pitch + j);
    }
  }
}

// out[l] += sum over j of probabilities[j] * values[j * stride + l] for WIDTH numbers kept in registers meanwhile.
template <int64_t WIDTH, typename T>
IGF_INLINE void gather_block(const T* values, int64_t stride, int64_t count, const float* probabilities,
                             float* __restrict out) {
  float sums[WIDTH] = {};
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t l = 0; l < WIDTH; ++l) sums[l] += probabilities[j] * float(values[j * stride + l]);
  }
  // The run is summed by itself: one chain of additions over all values would lose more.
  for (int64_t l = 0; l < WIDTH; ++l) out[l] += sums[l];
}

// The same for the rest < kLanes numbers at the end. All of them advance together from key to key: were each summed by
// itself, the compiler would pair keys as their count allows, and bits would depend on how many keys come after.
template <typename T>
IGF_INLINE void gather_rest(const T* values, int64_t stride, int64_t count, const float* probabilities, int64_t rest,
                            float* __restrict out) {
  float sums[kLanes] = {};
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t l = 0; l < rest; ++l) sums[l] += probabilities[j] * float(values[j * stride + l]);
  }
  for (int64_t l = 0; l < rest; ++l) out[l] += sums[l];
}

// out[i] += sum over j of probabilities[i * pitch + j] * values[j].
template <typename T>
IGF_INLINE void gather_body(const T* values, int64_t stride, int64_t count, const float* probabilities, int64_t pitch,
                            int64_t query_count, int64_t width, float* out) {
  for (int64_t i = 0; i < query_count; ++i) {
    const float* from = probabilities + i * pitch;
    float* to = out + i * width;
    int64_t d = 0;
    for (; d + 4 * kLanes <= width; d += 4 * kLanes) gather_block<4 * kLanes>(values + d, stride, count, from, to + d);
    for (; d + kLanes <= width; d += kLanes) gather_block<kLanes>(values + d, stride, count, from, to + d);
    if (d < width) gather_rest(values + d, stride, count, from, width - d, to + d);
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

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_DECODE_ROWS(T)                                                                                            \
  IGF_CLONES void score(const T* keys, int64_t stride, int64_t count, const float* queries, int64_t query_count,      \
                        int64_t width, float* scores, int64_t pitch) {                                                \
    score_body(keys, stride, count, queries, query_count, width, scores, pitch);                                      \
  }                                                                                                                   \
  IGF_CLONES void gather(const T* values, int64_t stride, int64_t count, const float* probabilities, int64_t pitch,   \
                         int64_t query_count, int64_t width, float* out) {                                            \
    gather_body(values, stride, count, probabilities, pitch, query_count, width, out);                                \
  }                                                                                                                   \
  IGF_CLONES void read(const T* __restrict from, float* __restrict to, int64_t count, float factor) {                 \
    read_body(from, to, count, factor);                                                                               \
  }                                                                                                                   \
  IGF_CLONES void write(const float* __restrict from, T* __restrict to, int64_t count, float factor) {                \
    write_body(from, to, count, factor);                                                                              \
  }
IGF_DECODE_ROWS(float)
IGF_DECODE_ROWS(bfloat16)
IGF_DECODE_ROWS(half)
#undef IGF_DECODE_ROWS

// Turns scores [begin, end) of [0, count) into exp(score - maximum) and the rest into 0; returns the sum.
IGF_CLONES float softmax(float* scores, int64_t count, int64_t begin, int64_t end) {
  float tops[kLanes], lanes[kLanes] = {}, top = kMinusInfinity;
  for (int64_t l = 0; l < kLanes; ++l) tops[l] = kMinusInfinity;
  int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) tops[l] = scores[j + l] > tops[l] ? scores[j + l] : tops[l];
  }
  for (; j < end; ++j) top = scores[j] > top ? scores[j] : top;
  for (int64_t l = 0; l < kLanes; ++l) top = tops[l] > top ? tops[l] : top;
  std::fill(scores, scores + begin, 0.0f);
  std::fill(scores + end, scores + count, 0.0f);
  for (j = begin; j + kLanes <= end; j += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) {
      scores[j + l] = math::exp(scores[j + l] - top);
      lanes[l] += scores[j + l];
    }
  }
  for (; j < end; ++j) {
    scores[j] = math::exp(scores[j] - top);
    lanes[0] += scores[j];
  }
  return sum_of(lanes);
}

// Positions that the new tokens of a row see between them.
struct Seen {
  int64_t begin, end;
};

Seen seen_by_row(const AttentionDecodeShape& shape, int64_t cached) {
  const int64_t begin = shape.window > 0 ? std::max<int64_t>(0, cached + 1 - shape.window) : 0;
  return {begin, cached + shape.tokens};
}

struct Buffers {
  std::vector<float> queries, out, sums, scores;
};

// Some neighbouring key heads of one row.
template <typename T>
struct Task {
  const AttentionDecode<T>& call;
  int64_t row, first_head, heads;

  T* slot(T* cache, int64_t position) const {
    const AttentionDecodeShape& s = call.shape;
    const int64_t page = call.block_table[row * s.table_width + position / s.page];
    return cache + ((page * s.page + position % s.page) * s.kv_heads + first_head) * s.width;
  }

  // Calls use(first position, count, pointer to the first of count entries) for runs of at most kRun within one page.
  template <typename Use>
  void for_each_run(T* cache, Seen seen, const Use& use) const {
    for (int64_t at = seen.begin; at < seen.end;) {
      const int64_t next = std::min({seen.end, (at / call.shape.page + 1) * call.shape.page, at + kRun});
      use(at, next - at, slot(cache, at));
      at = next;
    }
  }

  void append(int64_t cached) const {
    const AttentionDecodeShape& s = call.shape;
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t from = ((row * s.tokens + t) * s.kv_heads + first_head) * s.width;
      std::copy_n(call.k + from, heads * s.width, slot(call.k_cache, cached + t));
      std::copy_n(call.v + from, heads * s.width, slot(call.v_cache, cached + t));
    }
  }

  // Query i of this task in q and out: by key head, then token, then query head of the key head.
  int64_t query_offset(int64_t i) const {
    const AttentionDecodeShape& s = call.shape;
    const int64_t group = s.heads / s.kv_heads, per_head = s.tokens * group, token = i % per_head / group;
    const int64_t head = (first_head + i / per_head) * group + i % group;
    return ((row * s.tokens + token) * s.heads + head) * s.width;
  }

  void run(Buffers& buffers) const {
    const AttentionDecodeShape& s = call.shape;
    const int64_t cached = call.cache_lens[row], group = s.heads / s.kv_heads, per_head = s.tokens * group;
    const int64_t queries = heads * per_head;
    const Seen seen = seen_by_row(s, cached);
    const int64_t count = seen.end - seen.begin;
    append(cached);
    const size_t needed = static_cast<size_t>(queries * count);
    if (buffers.scores.size() < needed) buffers.scores.resize(needed);
    float* scores = buffers.scores.data();
    for (int64_t i = 0; i < queries; ++i) {
      read(call.q + query_offset(i), buffers.queries.data() + i * s.width, s.width, s.scale);
    }
    const int64_t stride = s.kv_heads * s.width;
    for_each_run(call.k_cache, seen, [&](int64_t at, int64_t positions, const T* keys) {
      for (int64_t h = 0; h < heads; ++h) {
        score(keys + h * s.width, stride, positions, buffers.queries.data() + h * per_head * s.width, per_head, s.width,
              scores + h * per_head * count + at - seen.begin, count);
      }
    });
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t position = cached + i % per_head / group;
      const int64_t first = s.window > 0 ? std::max<int64_t>(0, position + 1 - s.window) : 0;
      buffers.sums[static_cast<size_t>(i)] =
          softmax(scores + i * count, count, first - seen.begin, position + 1 - seen.begin);
    }
    std::fill(buffers.out.begin(), buffers.out.end(), 0.0f);
    for_each_run(call.v_cache, seen, [&](int64_t at, int64_t positions, const T* values) {
      for (int64_t h = 0; h < heads; ++h) {
        gather(values + h * s.width, stride, positions, scores + h * per_head * count + at - seen.begin, count, per_head,
               s.width, buffers.out.data() + h * per_head * s.width);
      }
    });
    for (int64_t i = 0; i < queries; ++i) {
      const float share = 1.0f / buffers.sums[static_cast<size_t>(i)];
      write(buffers.out.data() + i * s.width, call.out + query_offset(i), s.width, share);
    }
  }
};

}  // namespace

AttentionDecodeProblem attention_decode_problem(const AttentionDecodeShape& shape, const int32_t* block_table,
                                                const int32_t* cache_lens) {
  for (int64_t row = 0; row < shape.rows; ++row) {
    const int64_t cached = cache_lens[row];
    if (cached < 0) return {AttentionDecodeProblem::kNegativeLength, row, cached};
    const Seen seen = seen_by_row(shape, cached);
    if (seen.end > shape.table_width * shape.page) return {AttentionDecodeProblem::kTableTooShort, row, seen.end};
    for (int64_t p = seen.begin / shape.page; p * shape.page < seen.end; ++p) {
      const int64_t page = block_table[row * shape.table_width + p];
      if (page < 0 || page >= shape.pages) return {AttentionDecodeProblem::kPageOutside, row, page};
    }
  }
  return {AttentionDecodeProblem::kFine, 0, 0};
}

template <typename T>
void attention_decode(const AttentionDecode<T>& call) {
  const AttentionDecodeShape& s = call.shape;
  if (s.tokens == 0) return;
  // A row's pages are read in one piece where there are rows enough; few rows are split by heads.
  const int64_t heads = std::max<int64_t>(1, s.kv_heads * s.rows / kTasksEnough);
  const int64_t task_heads = std::min(heads, s.kv_heads), splits = (s.kv_heads + task_heads - 1) / task_heads;
  const int64_t tasks = s.rows * splits;
  int64_t elements = 0;
  for (int64_t row = 0; row < s.rows; ++row) {
    const Seen seen = seen_by_row(s, call.cache_lens[row]);
    elements += (seen.end - seen.begin) * s.kv_heads * s.width;
  }
  const int64_t grain = 1 + tasks * kGrainElements / (elements + 1);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    const size_t queries = static_cast<size_t>(task_heads * s.tokens * (s.heads / s.kv_heads));
    const std::vector<float> zeros(queries * static_cast<size_t>(s.width));
    Buffers buffers{zeros, zeros, std::vector<float>(queries), {}};
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % splits * task_heads;
      Task<T>{call, task / splits, first, std::min(task_heads, s.kv_heads - first)}.run(buffers);
    }
  });
}

template void attention_decode<float>(const AttentionDecode<float>&);
template void attention_decode<bfloat16>(const AttentionDecode<bfloat16>&);
template void attention_decode<half>(const AttentionDecode<half>&);

}  // namespace igf
