// sample_token: schema, checks and the CPU execution.
#include "ops/sample_token/sample_token.h"

#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "sample_token";
constexpr int64_t kMostTokens = int64_t{1} << 30;  // tokens are counted in 32 bits inside

std::tuple<Tensor, Tensor> sample_token_cpu(Tensor logits, Tensor seeds, Tensor positions, Tensor parameters,
                                            OptionalTensor history) {
  IGF_CHECK(logits.dim() == 2 && logits.size(1) > 0, kOp, ": logits must be a matrix with at least one column");
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  IGF_CHECK(vocab <= kMostTokens, kOp, ": logits must have at most ", kMostTokens, " columns, got ", vocab);
  check_dtype(kOp, "seeds", seeds, ScalarType::Long);
  check_dtype(kOp, "positions", positions, ScalarType::Long);
  check_dtype(kOp, "parameters", parameters, ScalarType::Float);
  check_vector(kOp, "seeds", seeds, rows);
  check_vector(kOp, "positions", positions, rows);
  IGF_CHECK(parameters.dim() == 2 && parameters.size(1) == kParameters, kOp, ": parameters must have ",
            static_cast<int>(kParameters), " columns");
  IGF_CHECK(parameters.size(0) == rows || parameters.size(0) == 1, kOp, ": parameters must have ", rows, " rows or 1");
  if (history.has_value()) {
    check_dtype(kOp, "history", *history, ScalarType::Long);
    IGF_CHECK(history->dim() == 2 && history->size(0) == rows, kOp, ": history must be a matrix of ", rows, " rows");
  }
  const Tensor input = dense(logits), keys = dense(seeds), places = dense(positions), numbers = dense(parameters);
  const OptionalTensor past = dense(history);
  const Tensor tokens = new_empty(keys, {rows}, ScalarType::Long);
  const Tensor logprobs = new_empty(keys, {rows}, ScalarType::Float);
  switch_float(kOp, input.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    sample_token_forward<T>({data<T>(input), data<int64_t>(keys), data<int64_t>(places), data<float>(numbers),
                             numbers.size(0) == 1 ? 0 : static_cast<int64_t>(kParameters), data<int64_t>(past),
                             past.has_value() ? past->size(1) : 0, mutable_data<int64_t>(tokens),
                             mutable_data<float>(logprobs), rows, vocab});
  });
  return {tokens, logprobs};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // parameters: temperature, top_k, top_p, min_p, repetition_penalty; [B, 5], or [1, 5] for all rows.
  m.def(
      "sample_token(Tensor logits, Tensor seeds, Tensor positions, Tensor parameters, Tensor? history) -> "
      "(Tensor tokens, Tensor logprobs)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("sample_token", TORCH_BOX(&igf::sample_token_cpu)); }
