// attention_decode: schema, checks of lengths and page numbers, allocation and the CPU registration.
#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"
#include "ops/attention_decode/attention_decode_checks.h"

namespace igf {
namespace {

constexpr const char* kOp = "attention_decode";

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

// Elements from a token to the next where tokens, which are dense themselves, follow each other evenly; else 0.
int64_t token_stride(const Tensor& t) {
  const int64_t rows = t.size(0), tokens = t.size(1), heads = t.size(2), width = t.size(3);
  const bool dense_tokens = (width == 1 || t.stride(3) == 1) && (heads == 1 || t.stride(2) == width);
  const int64_t stride = tokens > 1 ? t.stride(1) : t.stride(0);
  const bool even = rows == 1 || tokens == 1 || t.stride(0) == tokens * stride;
  return dense_tokens && even ? stride : 0;
}

// Parts of a fused projection stay where they are: three copies would cost as much as a short row's attention.
Tensor with_even_tokens(const Tensor& tensor) { return token_stride(tensor) > 0 ? tensor : dense(tensor); }

Tensor attention_decode_cpu(Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, Tensor block_table,
                            Tensor cache_lens, std::optional<int64_t> window, double scale) {
  const AttentionDecodeTensors tensors{q, k, v, k_cache, v_cache, block_table, cache_lens};
  check_decode_inputs(tensors);
  const Tensor queries = with_even_tokens(q), keys = with_even_tokens(k), values = with_even_tokens(v);
  const Tensor table = dense(block_table), lens = dense(cache_lens);
  const AttentionDecodeShape shape = decode_shape(tensors, window, scale);
  if (shape.tokens > 0) check_rows(shape, data<int32_t>(table), data<int32_t>(lens));
  const Tensor out = new_empty_like(q);
  switch_float(kOp, q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    attention_decode<T>({shape, data<T>(queries), data<T>(keys), data<T>(values), token_stride(queries),
                         token_stride(keys), token_stride(values), mutable_data<T>(k_cache), mutable_data<T>(v_cache),
                         data<int32_t>(table), data<int32_t>(lens), mutable_data<T>(out)});
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
