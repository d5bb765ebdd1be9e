// attention_decode: what its CPU and its CUDA execution require of their inputs, their values aside.
#pragma once

#include "binding/tensor.h"
#include "ops/attention_decode/attention_decode.h"

namespace igf {

struct AttentionDecodeTensors {
  Tensor q, k, v, k_cache, v_cache, block_table, cache_lens;
};

inline void check_decode_cache(const char* name, const Tensor& cache, const Tensor& k) {
  constexpr const char* kOp = "attention_decode";
  IGF_CHECK(cache.dim() == 4 && cache.size(2) == k.size(2) && cache.size(3) == k.size(3), kOp, ": ", name,
            " must be [pages, page, ", k.size(2), ", ", k.size(3), "] for k's heads and width");
  IGF_CHECK(cache.is_contiguous(), kOp, ": ", name, " is written in place and must be contiguous");
  check_dtype(kOp, name, cache, k.scalar_type());
}

inline void check_decode_inputs(const AttentionDecodeTensors& t) {
  constexpr const char* kOp = "attention_decode";
  const Tensor &q = t.q, &k = t.k;
  IGF_CHECK(q.dim() == 4 && k.dim() == 4 && t.block_table.dim() == 2, kOp,
            ": q and k need 4 dimensions, block_table 2");
  IGF_CHECK(k.size(0) == q.size(0) && k.size(1) == q.size(1) && k.size(3) == q.size(3) && k.size(2) > 0 &&
                q.size(2) % k.size(2) == 0,
            kOp, ": k must have q's rows, tokens and width, and q's heads be a multiple of k's");
  check_same_sizes(kOp, "v", t.v, k);
  check_dtype(kOp, "k", k, q.scalar_type());
  check_dtype(kOp, "v", t.v, q.scalar_type());
  check_decode_cache("k_cache", t.k_cache, k);
  check_decode_cache("v_cache", t.v_cache, k);
  check_same_sizes(kOp, "v_cache", t.v_cache, t.k_cache);
  check_dtype(kOp, "block_table", t.block_table, ScalarType::Int);
  check_dtype(kOp, "cache_lens", t.cache_lens, ScalarType::Int);
  check_vector(kOp, "cache_lens", t.cache_lens, q.size(0));
  IGF_CHECK(t.block_table.size(0) == q.size(0), kOp, ": block_table must have one row for each row of q");
}

inline AttentionDecodeShape decode_shape(const AttentionDecodeTensors& t, std::optional<int64_t> window,
                                         double scale) {
  return {t.q.size(0),       t.q.size(1),           t.q.size(2),          t.k.size(2), t.q.size(3), t.k_cache.size(0),
          t.k_cache.size(1), t.block_table.size(1), window.value_or(0), static_cast<float>(scale)};
}

}  // namespace igf
