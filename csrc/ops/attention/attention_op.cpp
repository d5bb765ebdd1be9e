// attention: schemas, checks, allocation and the CPU registration.
#include "ops/attention/attention.h"

#include "binding/aten.h"
#include "binding/dtype.h"
#include "ops/attention/attention_call.h"

namespace igf {
namespace {

using namespace attention;

template <typename T>
AttentionView<const T> read_view(const Tensor& tensor) {
  return view_of(tensor, data<T>(tensor));
}

template <typename T>
AttentionView<T> write_view(const Tensor& tensor) {
  return view_of(tensor, mutable_data<T>(tensor));
}

std::vector<AttentionSequence> packed_sequences(const Tensor& cu_seqlens, int64_t rows) {
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
  check_dropout(dropout_p, dropout_seed);
  const int64_t seed = dropout_seed.has_value() ? *data<int64_t>(*dropout_seed) : 0;
  return {q.size(d - 2), k.size(d - 2), q.size(d - 1), causal, window.value_or(0), static_cast<float>(scale),
          static_cast<float>(dropout_p), seed};
}

std::tuple<Tensor, Tensor> attention_cpu(Tensor q, Tensor k, Tensor v, OptionalTensor cu_seqlens, bool causal,
                                         std::optional<int64_t> window, double dropout_p, OptionalTensor dropout_seed,
                                         double scale) {
  check_inputs(q, k, v, cu_seqlens);
  const std::vector<AttentionSequence> sequences = sequences_of(q, k, cu_seqlens);
  const Tensor queries = with_row_stride(q), keys = with_row_stride(k), values = with_row_stride(v);
  const Tensor out = new_empty_like(q);
  const Tensor lse = new_empty(q, sizes_by_head(q), ScalarType::Float);
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_forward<T>({shape_of(q, k, causal, window, dropout_p, dropout_seed, scale), sequences.data(),
                          static_cast<int64_t>(sequences.size()), all_rows(q), read_view<T>(queries),
                          read_view<T>(keys), read_view<T>(values), write_view<T>(out), mutable_data<float>(lse)});
  });
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_backward_cpu(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
                                                          Tensor lse, OptionalTensor cu_seqlens, bool causal,
                                                          std::optional<int64_t> window, double dropout_p,
                                                          OptionalTensor dropout_seed, double scale,
                                                          bool /*deterministic: these loops always are*/) {
  check_inputs(q, k, v, cu_seqlens);
  check_gradient(dout, q, out, lse);
  const std::vector<AttentionSequence> sequences = sequences_of(q, k, cu_seqlens);
  const Tensor queries = with_row_stride(q), keys = with_row_stride(k), values = with_row_stride(v);
  const Tensor outputs = with_row_stride(out), gradient = with_row_stride(dout), sums = dense(lse);
  const Tensor delta = new_empty(q, sizes_by_head(q), ScalarType::Float);
  const Tensor dq = new_empty_like(q), dk = new_empty_like(k), dv = new_empty_like(k);
  const Tensor dq_sum = q.scalar_type() == ScalarType::Float ? dq : new_empty(q, sizes_of(q), ScalarType::Float);
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_backward<T>({shape_of(q, k, causal, window, dropout_p, dropout_seed, scale), sequences.data(),
                           static_cast<int64_t>(sequences.size()), all_rows(q), read_view<T>(queries),
                           read_view<T>(keys), read_view<T>(values), read_view<T>(outputs), read_view<T>(gradient),
                           data<float>(sums), mutable_data<float>(delta), write_view<float>(dq_sum), write_view<T>(dq),
                           write_view<T>(dk), write_view<T>(dv)});
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
