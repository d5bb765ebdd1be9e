// attention: schemas, checks, allocation and the CPU registration.
#include "ops/attention/attention.h"

#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "attention";

// [B, T, heads, width] or [N, heads, width] whose rows can be reached by one stride; else a dense copy.
Tensor with_row_stride(const Tensor& tensor) {
  const int64_t d = tensor.dim();
  const bool dense_width = tensor.size(d - 1) == 1 || tensor.stride(d - 1) == 1;
  const bool one_stride = d == 3 || tensor.size(0) == 1 || tensor.size(1) == 1 ||
                          tensor.stride(0) == tensor.size(1) * tensor.stride(1);
  return dense_width && one_stride ? tensor : torch::stable::contiguous(tensor);
}

template <typename T, typename Pointer>
AttentionView<T> view_of(const Tensor& tensor, Pointer pointer) {
  const int64_t d = tensor.dim();
  const bool one_row_a_sequence = d == 4 && tensor.size(1) == 1;
  return {pointer, tensor.stride(one_row_a_sequence ? 0 : d - 3), tensor.stride(d - 2)};
}

template <typename T>
AttentionView<const T> read_view(const Tensor& tensor) {
  return view_of<const T>(tensor, data<T>(tensor));
}

template <typename T>
AttentionView<T> write_view(const Tensor& tensor) {
  return view_of<T>(tensor, mutable_data<T>(tensor));
}

void check_inputs(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& cu_seqlens) {
  const int64_t d = q.dim();
  IGF_CHECK(d == (cu_seqlens.has_value() ? 3 : 4), kOp, ": q must have 4 dimensions, or 3 with cu_seqlens");
  check_same_sizes(kOp, "v", v, k);
  check_dtype(kOp, "k", k, q.scalar_type());
  check_dtype(kOp, "v", v, q.scalar_type());
  IGF_CHECK(k.dim() == d && k.size(d - 1) == q.size(d - 1), kOp, ": k must have q's width");
  IGF_CHECK(k.size(d - 2) > 0 && q.size(d - 2) % k.size(d - 2) == 0, kOp, ": q's heads must be a multiple of k's");
  IGF_CHECK(k.size(0) == q.size(0), kOp, ": k must have q's batch or packed rows");
}

std::vector<AttentionSequence> packed_sequences(const Tensor& cu_seqlens, int64_t rows) {
  check_dtype(kOp, "cu_seqlens", cu_seqlens, ScalarType::Int);
  IGF_CHECK(cu_seqlens.dim() == 1 && cu_seqlens.size(0) >= 1, kOp,
            ": cu_seqlens must be a vector of at least 1 element");
  const Tensor bounds = dense(cu_seqlens);
  const int32_t* at = data<int32_t>(bounds);
  const int64_t count = bounds.size(0) - 1;
  IGF_CHECK(at[0] == 0 && at[count] == rows, kOp, ": cu_seqlens must begin with 0 and end with the ", rows,
            " packed rows, got ", at[0], " and ", at[count]);
  std::vector<AttentionSequence> sequences;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = at[s], length = at[s + 1] - begin;
    IGF_CHECK(length >= 0, kOp, ": cu_seqlens must not decrease, got ", at[s], " and then ", at[s + 1]);
    sequences.push_back({begin, length, begin, length});
  }
  return sequences;
}

std::vector<AttentionSequence> sequences_of(const Tensor& q, const Tensor& k, const OptionalTensor& cu_seqlens) {
  if (cu_seqlens.has_value()) return packed_sequences(*cu_seqlens, q.size(0));
  std::vector<AttentionSequence> sequences;
  for (int64_t b = 0; b < q.size(0); ++b) sequences.push_back({b * q.size(1), q.size(1), b * k.size(1), k.size(1)});
  return sequences;
}

AttentionShape shape_of(const Tensor& q, const Tensor& k, bool causal, std::optional<int64_t> window, double dropout_p,
                        const OptionalTensor& dropout_seed, double scale) {
  const int64_t d = q.dim();
  IGF_CHECK(dropout_p == 0.0 || dropout_seed.has_value(), kOp, ": dropout needs dropout_seed");
  int64_t seed = 0;
  if (dropout_seed.has_value()) {
    check_dtype(kOp, "dropout_seed", *dropout_seed, ScalarType::Long);
    IGF_CHECK(dropout_seed->numel() == 1, kOp, ": dropout_seed must have 1 element");
    seed = *data<int64_t>(*dropout_seed);
  }
  return {q.size(d - 2), k.size(d - 2), q.size(d - 1), causal, window.value_or(0), static_cast<float>(scale),
          static_cast<float>(dropout_p), seed};
}

std::vector<int64_t> sizes_without_width(const Tensor& q) {
  return std::vector<int64_t>(q.sizes().begin(), q.sizes().end() - 1);
}

std::tuple<Tensor, Tensor> attention_cpu(Tensor q, Tensor k, Tensor v, OptionalTensor cu_seqlens, bool causal,
                                         std::optional<int64_t> window, double dropout_p, OptionalTensor dropout_seed,
                                         double scale) {
  check_inputs(q, k, v, cu_seqlens);
  const std::vector<AttentionSequence> sequences = sequences_of(q, k, cu_seqlens);
  const Tensor queries = with_row_stride(q), keys = with_row_stride(k), values = with_row_stride(v);
  const Tensor out = new_empty(q, std::vector<int64_t>(q.sizes().begin(), q.sizes().end()), q.scalar_type());
  const Tensor lse = new_empty(q, sizes_without_width(q), ScalarType::Float);
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_forward<T>({shape_of(q, k, causal, window, dropout_p, dropout_seed, scale), sequences.data(),
                          static_cast<int64_t>(sequences.size()), read_view<T>(queries), read_view<T>(keys),
                          read_view<T>(values), write_view<T>(out), mutable_data<float>(lse)});
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward_cpu(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
                                                          Tensor lse, OptionalTensor cu_seqlens, bool causal,
                                                          std::optional<int64_t> window, double dropout_p,
                                                          OptionalTensor dropout_seed, double scale,
                                                          bool /*deterministic: these loops always are*/) {
  check_inputs(q, k, v, cu_seqlens);
  check_same_sizes(kOp, "dout", dout, q);
  check_same_sizes(kOp, "out", out, q);
  check_dtype(kOp, "dout", dout, q.scalar_type());
  const std::vector<AttentionSequence> sequences = sequences_of(q, k, cu_seqlens);
  const Tensor queries = with_row_stride(q), keys = with_row_stride(k), values = with_row_stride(v);
  const Tensor outputs = with_row_stride(out), gradient = with_row_stride(dout), sums = dense(lse);
  const Tensor delta = new_empty(q, sizes_without_width(q), ScalarType::Float);
  const std::vector<int64_t> k_sizes(k.sizes().begin(), k.sizes().end());
  const std::vector<int64_t> q_sizes(q.sizes().begin(), q.sizes().end());
  const Tensor dq = new_empty(q, q_sizes, q.scalar_type());
  const Tensor dq_sum = q.scalar_type() == ScalarType::Float ? dq : new_empty(q, q_sizes, ScalarType::Float);
  const Tensor dk = new_empty(k, k_sizes, k.scalar_type()), dv = new_empty(k, k_sizes, k.scalar_type());
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_backward<T>({shape_of(q, k, causal, window, dropout_p, dropout_seed, scale), sequences.data(),
                           static_cast<int64_t>(sequences.size()), read_view<T>(queries), read_view<T>(keys),
                           read_view<T>(values), read_view<T>(outputs), read_view<T>(gradient), data<float>(sums),
                           mutable_data<float>(delta), write_view<float>(dq_sum), write_view<T>(dq), write_view<T>(dk),
                           write_view<T>(dv)});
  });
  return {dq, dk, dv};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens, bool causal, int? window, float dropout_p, "
      "Tensor? dropout_seed, float scale) -> (Tensor out, Tensor lse)");
  m.def(
      "attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? cu_seqlens, "
      "bool causal, int? window, float dropout_p, Tensor? dropout_seed, float scale, bool deterministic) -> "
      "(Tensor dq, Tensor dk, Tensor dv)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("attention", TORCH_BOX(&igf::attention_cpu));
  m.impl("attention_backward", TORCH_BOX(&igf::attention_backward_cpu));
}
