// attention_decode on the CPU: a task is some queries of a row (some of its new tokens and some of its key heads). It
// walks the pages that they see once for the keys and once for the values; every key that is read meets all its queries.
//
// A query's bits depend on its row's positions alone: runs of keys end at multiples of kRun and at ends of pages, and
// what a query does not see is not added to it, not even times zero. So a prompt may come in any pieces.
#include <algorithm>
#include <vector>

#include "cpu/parallel.h"
#include "ops/attention_decode/attention_decode.h"
#include "ops/attention_decode/attention_decode_tiles.h"

namespace igf {
namespace {

using decode::kRun;
using decode::kTogether;

// Queries of a head in a task, at most; more make more tasks.
constexpr int64_t kTaskQueries = 32;
// With fewer rows than this, a row's heads are shared out too.
constexpr int64_t kTasksEnough = 16;
// Cached numbers worth a thread's start.
constexpr int64_t kGrainElements = 32768;

// Positions from `begin` up to, not with, `end`.
struct Seen {
  int64_t begin, end;
};

// What the tokens at [first, last) see between them.
Seen seen_by(const AttentionDecodeShape& shape, int64_t first, int64_t last) {
  return {shape.window > 0 ? std::max<int64_t>(0, first + 1 - shape.window) : 0, last};
}

Seen seen_by_row(const AttentionDecodeShape& shape, int64_t cached) {
  return seen_by(shape, cached, cached + shape.tokens);
}

struct Buffers {
  std::vector<float> queries, out, sums, scores, run;
};

// Tokens [first_token, first_token + tokens) of a row and some neighbouring key heads.
template <typename T>
struct Task {
  const AttentionDecode<T>& call;
  int64_t row, first_head, heads, first_token, tokens;

  int64_t group() const { return call.shape.heads / call.shape.kv_heads; }
  int64_t queries_per_head() const { return tokens * group(); }
  int64_t position(int64_t token) const { return call.cache_lens[row] + token; }

  T* slot(T* cache, int64_t at) const {
    const AttentionDecodeShape& s = call.shape;
    const int64_t page = call.block_table[row * s.table_width + at / s.page];
    return cache + ((page * s.page + at % s.page) * s.kv_heads + first_head) * s.width;
  }

  void append() const {
    const AttentionDecodeShape& s = call.shape;
    for (int64_t t = first_token; t < first_token + tokens; ++t) {
      const int64_t token = row * s.tokens + t, head = first_head * s.width;
      std::copy_n(call.k + token * call.k_stride + head, heads * s.width, slot(call.k_cache, position(t)));
      std::copy_n(call.v + token * call.v_stride + head, heads * s.width, slot(call.v_cache, position(t)));
    }
  }

  // Calls use(head, first position, its run of at most kRun keys or values within one page) for all that is seen.
  template <typename Use>
  void for_each_run(T* cache, Seen seen, const Use& use) const {
    const AttentionDecodeShape& s = call.shape;
    for (int64_t at = seen.begin; at < seen.end;) {
      const int64_t next = std::min({seen.end, (at / s.page + 1) * s.page, (at / kRun + 1) * kRun});
      for (int64_t h = 0; h < heads; ++h) {
        use(h, at, decode::Run<T>{slot(cache, at) + h * s.width, s.kv_heads * s.width, next - at, s.width});
      }
      at = next;
    }
  }

  // Queries stand by key head, then token, then query head of the key head; i counts those of one key head.
  int64_t query_token(int64_t i) const { return row * call.shape.tokens + first_token + i / group(); }
  int64_t query_head(int64_t h, int64_t i) const { return (first_head + h) * group() + i % group(); }
  const T* query(int64_t h, int64_t i) const {
    return call.q + query_token(i) * call.q_stride + query_head(h, i) * call.shape.width;
  }
  T* result(int64_t h, int64_t i) const {
    return call.out + (query_token(i) * call.shape.heads + query_head(h, i)) * call.shape.width;
  }
  Seen seen_by_query(int64_t i) const {
    const int64_t own = position(first_token + i / group());
    return seen_by(call.shape, own, own + 1);
  }
  // What all of kTogether queries from i on see, and what some of them do.
  Seen seen_by_all(int64_t i) const { return {seen_by_query(i + kTogether - 1).begin, seen_by_query(i).end}; }
  Seen seen_by_some(int64_t i) const { return {seen_by_query(i).begin, seen_by_query(i + kTogether - 1).end}; }

  void run(Buffers& buffers) const;
};

bool overlap(Seen seen, int64_t at, int64_t count) { return seen.begin < at + count && at < seen.end; }

template <typename T>
void Task<T>::run(Buffers& buffers) const {
  const AttentionDecodeShape& s = call.shape;
  const int64_t per_head = queries_per_head(), width = decode::padded(s.width);
  const int64_t together = per_head / kTogether * kTogether;
  const Seen seen = seen_by(s, position(first_token), position(first_token + tokens));
  const int64_t pitch = seen.end - seen.begin + decode::kSpill;
  const size_t needed = static_cast<size_t>(heads * per_head * pitch);
  if (buffers.scores.size() < needed) buffers.scores.resize(needed);
  float *widened = buffers.run.data(), *queries = buffers.queries.data(), *out = buffers.out.data();
  for (int64_t q = 0; q < heads * per_head; ++q) {
    decode::read(query(q / per_head, q % per_head), queries + q * width, s.width, s.scale);
  }
  // Of query i of head h at a position.
  const auto scores_of = [&](int64_t h, int64_t i, int64_t at) {
    return buffers.scores.data() + (h * per_head + i) * pitch + at - seen.begin;
  };
  for_each_run(call.k_cache, seen, [&](int64_t h, int64_t at, const decode::Run<T>& keys) {
    if (together > 0) decode::widen(keys, widened);
    for (int64_t i = 0; i < together; i += kTogether) {
      if (!overlap(seen_by_some(i), at, keys.count)) continue;
      decode::score_together(widened, keys.count, width, queries + (h * per_head + i) * width, scores_of(h, i, at),
                             pitch);
    }
    for (int64_t i = together; i < per_head; ++i) {
      decode::score(keys, queries + (h * per_head + i) * width, scores_of(h, i, at));
    }
  });
  for (int64_t q = 0; q < heads * per_head; ++q) {
    const Seen own = seen_by_query(q % per_head);
    buffers.sums[static_cast<size_t>(q)] =
        decode::softmax(scores_of(q / per_head, q % per_head, own.begin), own.end - own.begin);
  }
  std::fill(buffers.out.begin(), buffers.out.end(), 0.0f);
  for_each_run(call.v_cache, seen, [&](int64_t h, int64_t at, const decode::Run<T>& values) {
    // Of a run that a query sees in part, that part.
    const auto alone = [&](int64_t i) {
      const Seen own = seen_by_query(i);
      const int64_t begin = std::max(own.begin, at), end = std::min(own.end, at + values.count);
      if (begin >= end) return;
      const T* from = values.from + (begin - at) * values.stride;
      decode::gather(decode::Run<T>{from, values.stride, end - begin, s.width}, scores_of(h, i, begin),
                     out + (h * per_head + i) * width);
    };
    if (together > 0) decode::widen(values, widened);
    for (int64_t i = 0; i < together; i += kTogether) {
      const Seen all = seen_by_all(i);
      if (all.begin <= at && at + values.count <= all.end) {
        decode::gather_together(widened, values.count, width, scores_of(h, i, at), pitch,
                                out + (h * per_head + i) * width);
      } else {
        for (int64_t member = i; member < i + kTogether; ++member) alone(member);
      }
    }
    for (int64_t i = together; i < per_head; ++i) alone(i);
  });
  for (int64_t q = 0; q < heads * per_head; ++q) {
    const float share = 1.0f / buffers.sums[static_cast<size_t>(q)];
    decode::write(out + q * width, result(q / per_head, q % per_head), s.width, share);
  }
}

// How a call is cut into tasks.
struct Plan {
  int64_t heads, tokens;  // of a task
  int64_t splits, blocks;  // of a row, into heads and into tokens
};

Plan plan_of(const AttentionDecodeShape& s) {
  const int64_t tokens = std::max<int64_t>(1, kTaskQueries / (s.heads / s.kv_heads));
  if (tokens < s.tokens) return {1, tokens, s.kv_heads, (s.tokens + tokens - 1) / tokens};
  // A row's pages are read in one piece where there are rows enough; few rows are split by heads.
  const int64_t heads = std::clamp<int64_t>(s.kv_heads * s.rows / kTasksEnough, 1, s.kv_heads);
  return {heads, s.tokens, (s.kv_heads + heads - 1) / heads, 1};
}

// The blocks of a row in the order 0, last, 1, last - 1, ...: later tokens see more, and threads share out neighbours.
int64_t nth_block(int64_t n, int64_t blocks) { return n % 2 == 0 ? n / 2 : blocks - 1 - n / 2; }

// Where a row's tokens are cut, a task reads what others append: all is appended first.
template <typename T>
void append_all(const AttentionDecode<T>& call) {
  const AttentionDecodeShape& s = call.shape;
  const int64_t grain = 1 + kGrainElements / (s.kv_heads * s.width);
  parallel_for(0, s.rows * s.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) Task<T>{call, n / s.tokens, 0, s.kv_heads, n % s.tokens, 1}.append();
  });
}

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
  const Plan plan = plan_of(s);
  const int64_t tasks = s.rows * plan.splits * plan.blocks;
  int64_t elements = 0;
  for (int64_t row = 0; row < s.rows; ++row) {
    const Seen seen = seen_by_row(s, call.cache_lens[row]);
    elements += (seen.end - seen.begin) * s.kv_heads * s.width * plan.blocks;
  }
  if (plan.blocks > 1) append_all(call);
  const int64_t grain = 1 + tasks * kGrainElements / (elements + 1);
  parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) {
    const size_t width = static_cast<size_t>(decode::padded(s.width));
    const size_t queries = static_cast<size_t>(plan.heads * plan.tokens * (s.heads / s.kv_heads));
    const std::vector<float> zeros(queries * width);
    Buffers buffers{zeros, zeros, std::vector<float>(queries), {}, std::vector<float>(kRun * width)};
    for (int64_t task = begin; task < end; ++task) {
      const int64_t head = task / plan.blocks % plan.splits * plan.heads;
      const int64_t token = nth_block(task % plan.blocks, plan.blocks) * plan.tokens;
      const Task<T> mine{call, task / plan.blocks / plan.splits, head, std::min(plan.heads, s.kv_heads - head),
                         token, std::min(plan.tokens, s.tokens - token)};
      if (plan.blocks == 1) mine.append();
      mine.run(buffers);
    }
  });
}

template void attention_decode<float>(const AttentionDecode<float>&);
template void attention_decode<bfloat16>(const AttentionDecode<bfloat16>&);
template void attention_decode<half>(const AttentionDecode<half>&);

}  // namespace igf
