// embedding: checks, allocation and registration of the CUDA execution. Ids are sorted by ATen, stably, so that equal
// ids keep their order: a few passes over 8 bytes a token, beside two reads of a row and the writing of whole tables.
#include "binding/aten.h"
#include "binding/cuda/context.h"
#include "ops/embedding/embedding.h"

namespace igf {
namespace {

constexpr const char* kOp = "embedding";

Tensor embedding_cuda(Tensor tokens, Tensor position_ids, Tensor token_weight, Tensor position_weight) {
  check_dtype(kOp, "tokens", tokens, ScalarType::Long);
  check_dtype(kOp, "position_ids", position_ids, ScalarType::Long);
  check_same_sizes(kOp, "position_ids", position_ids, tokens);
  check_dtype(kOp, "position_weight", position_weight, token_weight.scalar_type());
  IGF_CHECK(token_weight.dim() == 2 && position_weight.dim() == 2 && token_weight.size(1) == position_weight.size(1),
            kOp, ": token_weight and position_weight must be matrices of one width");
  const DeviceGuard guard(token_weight.get_device_index());
  tokens = dense(tokens), position_ids = dense(position_ids);
  token_weight = dense(token_weight), position_weight = dense(position_weight);
  std::vector<int64_t> sizes(tokens.sizes().begin(), tokens.sizes().end());
  sizes.push_back(token_weight.size(1));
  const Tensor y = new_empty(token_weight, sizes, token_weight.scalar_type());
  EmbeddingForward arguments{};
  arguments.tokens = data<int64_t>(tokens);
  arguments.position_ids = data<int64_t>(position_ids);
  arguments.token_weight = const_pointer(token_weight);
  arguments.position_weight = const_pointer(position_weight);
  arguments.y = mutable_pointer(y);
  arguments.count = tokens.numel();
  arguments.width = token_weight.size(1);
  arguments.vocab = token_weight.size(0);
  arguments.positions = position_weight.size(0);
  arguments.element = element_of(kOp, token_weight);
  arguments.aligned = is_aligned(token_weight) && is_aligned(position_weight) && is_aligned(y);
  embedding_forward_cuda(arguments, device_context(token_weight));
  return y;
}

// A table's ids in order, where each stood before, and room for the kernel's partial rows.
struct Runs {
  Tensor ids;
  Tensor order;
  Tensor partials;
};

Runs runs_of(const Tensor& ids, const Tensor& dy) {
  const int64_t count = ids.numel();
  const Tensor flat = torch::stable::reshape(ids, {count});
  const auto [sorted, order] =
      call_aten<Tensor, Tensor>("aten::sort", "stable", flat, std::optional<bool>(true), int64_t{0}, false);
  return {sorted, order, new_empty(dy, {embedding_partial_rows(count), last_size(dy)}, ScalarType::Float)};
}

Tensor gradient_of(const Runs& runs, const Tensor& dy, int64_t rows) {
  const Tensor dweight = new_zeros(dy, {rows, last_size(dy)}, dy.scalar_type());
  EmbeddingBackward arguments{};
  arguments.ids = data<int64_t>(runs.ids);
  arguments.order = data<int64_t>(runs.order);
  arguments.dy = const_pointer(dy);
  arguments.dweight = mutable_pointer(dweight);
  arguments.partials = mutable_data<float>(runs.partials);
  arguments.count = runs.ids.numel();
  arguments.width = last_size(dy);
  arguments.rows = rows;
  arguments.element = element_of(kOp, dy);
  arguments.aligned = is_aligned(dy) && is_aligned(dweight);
  embedding_backward_cuda(arguments, device_context(dy));
  return dweight;
}

std::tuple<Tensor, Tensor> embedding_backward_cuda_op(Tensor dy, Tensor tokens, Tensor position_ids, int64_t vocab,
                                                      int64_t positions) {
  check_dtype(kOp, "tokens", tokens, ScalarType::Long);
  check_dtype(kOp, "position_ids", position_ids, ScalarType::Long);
  IGF_CHECK(rows_of(dy) == tokens.numel() && rows_of(dy) == position_ids.numel(), kOp,
            ": dy must have one row for each token and position");
  const DeviceGuard guard(dy.get_device_index());
  dy = dense(dy);
  const Runs token_runs = runs_of(tokens, dy), position_runs = runs_of(position_ids, dy);
  return {gradient_of(token_runs, dy, vocab), gradient_of(position_runs, dy, positions)};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("embedding", TORCH_BOX(&igf::embedding_cuda));
  m.impl("embedding_backward", TORCH_BOX(&igf::embedding_backward_cuda_op));
}
