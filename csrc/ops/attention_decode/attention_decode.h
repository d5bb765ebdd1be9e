// One step of generation: appends new keys and values to a paged cache and attends to all that is there.
//
//   row b, new token t in [0, T): position n = cache_lens[b] + t
//   k_cache[block_table[b, n / page], n % page] = k[b, t], v_cache likewise
//   out[b, t] = sum over seen j of softmax_j(scale * q[b, t] . key(b, j)) value(b, j);  seen: n - window < j <= n
// Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the page table after Kwon et al. 2023, arXiv:2309.06180, 4.2.
//
// Shapes: q, out [rows, tokens, heads, width]; k, v [rows, tokens, kv_heads, width]; k_cache, v_cache
// [pages, page, kv_heads, width]; block_table [rows, table_width] i32; cache_lens [rows] i32. heads is a multiple of
// kv_heads; query head h reads key head h / (heads / kv_heads).
// Memory: each cached key and value that some new token sees is read once.
// Numbers: q, k, v, out and the caches share one dtype (f32, bf16, f16); scores, softmax and sums in f32.
// Limits: a row that outgrows its table and a page outside of the cache are errors on the CPU; attention_decode_cuda.h
// says what becomes of them on a GPU. A page that is written belongs to one row alone; pages that are only read may be
// shared. Entries of block_table before the first page seen (behind a window) and after the last are not read.
#pragma once

#include <cstdint>

namespace igf {

struct AttentionDecodeShape {
  int64_t rows, tokens, heads, kv_heads, width;
  int64_t pages, page, table_width;
  int64_t window;  // 0: none
  float scale;
};

// Why a row cannot be served, kFine if it can: its new length does not fit its table, or a page is not in the cache.
struct AttentionDecodeProblem {
  enum Kind { kFine, kNegativeLength, kTableTooShort, kPageOutside } kind;
  int64_t row, value;
};
AttentionDecodeProblem attention_decode_problem(const AttentionDecodeShape& shape, const int32_t* block_table,
                                                const int32_t* cache_lens);

template <typename T>
struct AttentionDecode {
  AttentionDecodeShape shape;
  const T *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;  // elements from a token to the next, of the same row or the next one
  T *k_cache, *v_cache;
  const int32_t *block_table, *cache_lens;
  T* out;
};

template <typename T>
void attention_decode(const AttentionDecode<T>& call);

}  // namespace igf
