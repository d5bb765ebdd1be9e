// What both executions of attention ask of their tensors: checks, sizes, and views with strides.
#pragma once

#include "binding/tensor.h"
#include "ops/attention/attention.h"

namespace igf::attention {

inline constexpr const char* kOp = "attention";

inline void check_inputs(const Tensor& q, const Tensor& k, const Tensor& v, const OptionalTensor& cu_seqlens) {
  const int64_t d = q.dim();
  IGF_CHECK(d == (cu_seqlens.has_value() ? 3 : 4), kOp, ": q must have 4 dimensions, or 3 with cu_seqlens");
  check_same_sizes(kOp, "v", v, k);
  check_dtype(kOp, "k", k, q.scalar_type());
  check_dtype(kOp, "v", v, q.scalar_type());
  IGF_CHECK(k.dim() == d && k.size(d - 1) == q.size(d - 1), kOp, ": k must have q's width");
  IGF_CHECK(k.size(d - 2) > 0 && q.size(d - 2) % k.size(d - 2) == 0, kOp, ": q's heads must be a multiple of k's");
  IGF_CHECK(k.size(0) == q.size(0), kOp, ": k must have q's batch or packed rows");
  if (!cu_seqlens.has_value()) return;
  check_dtype(kOp, "cu_seqlens", *cu_seqlens, ScalarType::Int);
  IGF_CHECK(cu_seqlens->dim() == 1 && cu_seqlens->size(0) >= 1, kOp,
            ": cu_seqlens must be a vector of at least 1 element");
}

// Rows of all sequences of q, k, v ..., of a dense batch [B, T, heads, width] or a packed one [N, heads, width].
inline int64_t all_rows(const Tensor& tensor) {
  return tensor.dim() == 4 ? tensor.size(0) * tensor.size(1) : tensor.size(0);
}

// Of lse and delta: one number a head and query row.
inline std::vector<int64_t> sizes_by_head(const Tensor& q) { return {q.size(q.dim() - 2), all_rows(q)}; }

inline void check_gradient(const Tensor& dout, const Tensor& q, const Tensor& out, const Tensor& lse) {
  check_same_sizes(kOp, "dout", dout, q);
  check_same_sizes(kOp, "out", out, q);
  check_dtype(kOp, "dout", dout, q.scalar_type());
  check_dtype(kOp, "out", out, q.scalar_type());
  check_dtype(kOp, "lse", lse, ScalarType::Float);
  IGF_CHECK(lse.dim() == 2 && lse.size(0) == q.size(q.dim() - 2) && lse.size(1) == all_rows(q), kOp,
            ": lse must have a number a head and query row");
}

inline void check_dropout(double dropout_p, const OptionalTensor& dropout_seed) {
  IGF_CHECK(dropout_p == 0.0 || dropout_seed.has_value(), kOp, ": dropout needs dropout_seed");
  if (!dropout_seed.has_value()) return;
  check_dtype(kOp, "dropout_seed", *dropout_seed, ScalarType::Long);
  IGF_CHECK(dropout_seed->numel() == 1, kOp, ": dropout_seed must have 1 element");
}

inline std::vector<int64_t> sizes_of(const Tensor& tensor) {
  return std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end());
}

// A row-major copy, at the beginning of an allocation.
inline Tensor dense_copy(const Tensor& tensor) {
  Tensor copy = torch::stable::new_empty(tensor, sizes_of(tensor), tensor.scalar_type());
  torch::stable::copy_(copy, tensor);
  return detail::copied(copy, tensor);
}

// The tensor itself where its rows can be reached by one stride and its last dimension is dense; else a dense copy.
inline Tensor with_row_stride(const Tensor& tensor) {
  const int64_t d = tensor.dim();
  const bool dense_width = tensor.size(d - 1) == 1 || tensor.stride(d - 1) == 1;
  const bool one_stride = d == 3 || tensor.size(0) == 1 || tensor.size(1) == 1 ||
                          tensor.stride(0) == tensor.size(1) * tensor.stride(1);
  return dense_width && one_stride ? tensor : dense_copy(tensor);
}

// `pointer` with the strides of such a tensor.
template <typename T>
AttentionView<T> view_of(const Tensor& tensor, T* pointer) {
  const int64_t d = tensor.dim();
  const bool one_row_a_sequence = d == 4 && tensor.size(1) == 1;
  return {pointer, tensor.stride(one_row_a_sequence ? 0 : d - 3), tensor.stride(d - 2)};
}

}  // namespace igf::attention
