// attention_decode: schema, checks (lengths and page numbers included), allocation and the CPU registration.
#include "ops/attention_decode/attention_decode.h"

#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "attention_decode";

void check_cache(const char* name, const Tensor& cache, const Tensor& k) {
  IGF_CHECK(cache.dim() == 4 && cache.size(2) == k.size(2) && cache.size(3) == k.size(3), kOp, ": ", name,
            " must be [pages, page, ", k.size(2), ", ", k.size(3), "] for k's heads and width");
  IGF_CHECK(cache.is_contiguous(), kOp, ": ", name, " is written in place and must be contiguous");
  check_dtype(kOp, name, cache, k.scalar_type());
}

AttentionDecodeShape shape_of(const Tensor& q, const Tensor& k, const Tensor& cache, const Tensor& block_table,
                              std::optional<int64_t> window, double scale) {
  return {q.size(0),     q.size(1),     q.size(2),           k.size(2),           q.size(3), cache.size(0),
          cache.size(1), block_table.size(1), window.value_or(0), static_cast<float>(scale)};
}

void check_rows(const AttentionDecodeShape& s, const int32_t* block_table, const int32_t* cache_lens) {
  const AttentionDecodeProblem problem = attention_decode_problem(s, block_table, cache_lens);
  const int64_t row = problem.row, value = problem.value;
  switch (problem.kind) {
    case AttentionDecodeProblem::kFine: return;
    case AttentionDecodeProblem::kNegativeLength:
      IGF_CHECK(false, kOp, ": cache_lens must be at least 0, got ", value, " in row ", row);
      return;
    case AttentionDecodeProblem::kTableTooShort:
      IGF_CHECK(false, kOp, ": row ", row, " would hold ", value, " tokens, its block_table has room for ",
                s.table_width * s.page);
      return;
    case AttentionDecodeProblem::kPageOutside:
      IGF_CHECK(false, kOp, ": block_table must hold pages in [0, ", s.pages, ") where row ", row, " needs them, got ",
                value);
  }
}

Tensor attention_decode_cpu(Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, Tensor block_table,
                            Tensor cache_lens, std::optional<int64_t> window, double scale) {
  IGF_CHECK(q.dim() == 4 && k.dim() == 4 && block_table.dim() == 2, kOp, ": q and k need 4 dimensions, block_table 2");
  IGF_CHECK(k.size(0) == q.size(0) && k.size(1) == q.size(1) && k.size(3) == q.size(3) && k.size(2) > 0 &&
                q.size(2) % k.size(2) == 0,
            kOp, ": k must have q's rows, tokens and width, and q's heads be a multiple of k's");
  check_same_sizes(kOp, "v", v, k);
  check_dtype(kOp, "k", k, q.scalar_type());
  check_dtype(kOp, "v", v, q.scalar_type());
  check_cache("k_cache", k_cache, k);
  check_cache("v_cache", v_cache, k);
  check_same_sizes(kOp, "v_cache", v_cache, k_cache);
  check_dtype(kOp, "block_table", block_table, ScalarType::Int);
  check_dtype(kOp, "cache_lens", cache_lens, ScalarType::Int);
  check_vector(kOp, "cache_lens", cache_lens, q.size(0));
  IGF_CHECK(block_table.size(0) == q.size(0), kOp, ": block_table must have one row for each row of q");
  const Tensor queries = dense(q), keys = dense(k), values = dense(v);
  const Tensor table = dense(block_table), lens = dense(cache_lens);
  const AttentionDecodeShape shape = shape_of(q, k, k_cache, block_table, window, scale);
  if (shape.tokens > 0) check_rows(shape, data<int32_t>(table), data<int32_t>(lens));
  const Tensor out = torch::stable::empty_like(queries);
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_decode<T>({shape, data<T>(queries), data<T>(keys), data<T>(values), mutable_data<T>(k_cache),
                         mutable_data<T>(v_cache), data<int32_t>(table), data<int32_t>(lens), mutable_data<T>(out)});
  });
  return out;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "attention_decode(Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor block_table, "
      "Tensor cache_lens, int? window, float scale) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("attention_decode", TORCH_BOX(&igf::attention_decode_cpu));
}
