// Scaled dot-product attention over dense or packed batches, and its gradient, without storing the scores.
//
//   s[i, j] = scale * q[i] . k[j] where query i sees key j, else -infinity
//   p[i, :] = softmax(s[i, :]),   out[i] = sum_j m[i, j] p[i, j] v[j],   lse[i] = log sum_j exp(s[i, j])
// Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; banded attention after Child et al. 2019, arXiv:1904.10509;
// online softmax and the gradient from lse after Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4 (appendix B).
//
// Who sees whom: with t_q queries and t_k keys in a sequence, query i stands at position i + t_k - t_q. When causal it
// sees keys up to its own position; a window w > 0 keeps the last w of these, itself included. A query that sees no key
// gets out = 0, lse = -infinity and zero gradients. Sequences never see each other.
//
// Shapes: q, out, dout, dq [query rows, heads, width]; k, v, dk, dv [key rows, kv_heads, width]; lse, delta
// [heads, query rows] f32. A dense batch is its sequences in a row. heads is a multiple of kv_heads; query head h reads
// key head h / (heads / kv_heads).
// Numbers: q, k, v, out and the gradients share one dtype (f32, bf16, f16); scores, softmax, sums, lse in f32.
//
// Dropout: m[i, j] = 0 or 1 / (1 - p). Element (query row n of the whole batch, head h, key j of the row's sequence) is
// kept when word (j / 16) % 4 of philox(counter = (j / 64 * 16 + j % 16, n, h, kDropout), key = seed) is at least
// round(p * 2^32): sixteen counters give 64 keys in a row, a vector at a time. The backward pass draws the words again.
#pragma once

#include <cstdint>

namespace igf {

struct AttentionShape {
  int64_t heads;
  int64_t kv_heads;
  int64_t width;
  bool causal;
  int64_t window;  // 0: none
  float scale;
  float dropout_p;
  int64_t dropout_seed;
};

// Rows [q_begin, q_begin + q_count) of q attend to rows [k_begin, k_begin + k_count) of k and v.
struct AttentionSequence {
  int64_t q_begin, q_count;
  int64_t k_begin, k_count;
};

// A [rows, heads, width] tensor whose last dimension is dense: element (n, h, d) lies at
// data[n * row_stride + h * head_stride + d].
template <typename T>
struct AttentionView {
  T* data;
  int64_t row_stride;
  int64_t head_stride;
};

template <typename T>
struct AttentionForward {
  AttentionShape shape;
  const AttentionSequence* sequences;
  int64_t sequence_count;
  int64_t q_rows;  // of all sequences
  AttentionView<const T> q, k, v;
  AttentionView<T> out;
  float* lse;
};

template <typename T>
struct AttentionBackward {
  AttentionShape shape;
  const AttentionSequence* sequences;
  int64_t sequence_count;
  int64_t q_rows;
  AttentionView<const T> q, k, v, out, dout;
  const float* lse;
  float* delta;                 // scratch
  AttentionView<float> dq_sum;  // scratch of dq's shape: the sum over blocks of keys; may be dq itself when T is f32
  AttentionView<T> dq, dk, dv;
};

template <typename T>
void attention_forward(const AttentionForward<T>& call);

template <typename T>
void attention_backward(const AttentionBackward<T>& call);

}  // namespace igf
