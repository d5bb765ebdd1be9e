// embedding: schema, checks (ids against their tables included), allocation and the CPU registration.
#include "ops/embedding/embedding.h"

#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "embedding";

void check_ids(const char* name, const Tensor& ids, const char* table, int64_t limit) {
  check_dtype(kOp, name, ids, ScalarType::Long);
  const int64_t* values = data<int64_t>(ids);
  const int64_t bad = find_id_outside(values, ids.numel(), limit);
  IGF_CHECK(bad < 0, kOp, ": ", name, " must lie in [0, ", limit, "), the rows of ", table, ", got ",
            bad < 0 ? 0 : values[bad], " at flat index ", bad);
}

std::vector<int64_t> sizes_with(const Tensor& ids, int64_t width) {
  std::vector<int64_t> sizes(ids.sizes().begin(), ids.sizes().end());
  sizes.push_back(width);
  return sizes;
}

Tensor embedding_cpu(Tensor tokens, Tensor position_ids, Tensor token_weight, Tensor position_weight) {
  check_same_sizes(kOp, "position_ids", position_ids, tokens);
  check_dtype(kOp, "position_weight", position_weight, token_weight.scalar_type());
  IGF_CHECK(token_weight.dim() == 2 && position_weight.dim() == 2 && token_weight.size(1) == position_weight.size(1),
            kOp, ": token_weight and position_weight must be matrices of one width");
  const Tensor ids = dense(tokens), positions = dense(position_ids);
  const Tensor words = dense(token_weight), places = dense(position_weight);
  check_ids("tokens", ids, "token_weight", words.size(0));
  check_ids("position_ids", positions, "position_weight", places.size(0));
  const int64_t width = words.size(1);
  const Tensor y = new_empty(words, sizes_with(ids, width), words.scalar_type());
  switch_float(kOp, words.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    embedding_forward(data<int64_t>(ids), data<int64_t>(positions), data<T>(words), data<T>(places),
                      mutable_data<T>(y), {ids.numel(), width});
  });
  return y;
}

Tensor gradient_of(const Tensor& ids, const char* name, const Tensor& dy, int64_t rows) {
  const Tensor dense_ids = dense(ids);
  check_ids(name, dense_ids, "its table", rows);
  const int64_t width = last_size(dy), count = dense_ids.numel();
  const Tensor dweight = new_empty(dy, {rows, width}, dy.scalar_type());
  const Tensor order = new_empty(dy, {count}, ScalarType::Long);
  const Tensor starts = new_empty(dy, {rows + 1}, ScalarType::Long);
  switch_float(kOp, dy.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    embedding_backward(data<int64_t>(dense_ids), data<T>(dy), mutable_data<T>(dweight), rows, {count, width},
                       mutable_data<int64_t>(order), mutable_data<int64_t>(starts));
  });
  return dweight;
}

std::tuple<Tensor, Tensor> embedding_backward_cpu(Tensor dy, Tensor tokens, Tensor position_ids, int64_t vocab,
                                                  int64_t positions) {
  IGF_CHECK(rows_of(dy) == tokens.numel() && rows_of(dy) == position_ids.numel(), kOp,
            ": dy must have one row for each token and position");
  const Tensor gradient = dense(dy);
  return {gradient_of(tokens, "tokens", gradient, vocab),
          gradient_of(position_ids, "position_ids", gradient, positions)};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("embedding(Tensor tokens, Tensor position_ids, Tensor token_weight, Tensor position_weight) -> Tensor");
  m.def(
      "embedding_backward(Tensor dy, Tensor tokens, Tensor position_ids, SymInt vocab, SymInt positions) -> "
      "(Tensor dtoken_weight, Tensor dposition_weight)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("embedding", TORCH_BOX(&igf::embedding_cpu));
  m.impl("embedding_backward", TORCH_BOX(&igf::embedding_backward_cpu));
}
