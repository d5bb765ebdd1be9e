// sample_token: the checks of a call and its results, the same on every device.
#pragma once

#include "binding/tensor.h"
#include "ops/sample_token/sample_token.h"

namespace igf {

// A call whose arguments have been found good; holds the tensors that the pointers in `arguments` come from.
struct SampleTokenCall {
  Tensor logits, tokens, logprobs;
  SampleTokenArguments arguments{};
  Tensor seeds, positions, parameters;
  OptionalTensor history;
};

inline SampleTokenCall sample_token_call(const Tensor& logits, const Tensor& seeds, const Tensor& positions,
                                         const Tensor& parameters, const OptionalTensor& history) {
  constexpr const char* kOp = "sample_token";
  constexpr int64_t kMostTokens = int64_t{1} << 30;  // tokens are counted in 32 bits inside
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
  const Tensor keys = dense(seeds);
  SampleTokenCall call{dense(logits), new_empty(keys, {rows}, ScalarType::Long),
                       new_empty(keys, {rows}, ScalarType::Float), {}, keys, dense(positions), dense(parameters),
                       dense(history)};
  SampleTokenArguments& a = call.arguments;
  a.logits = const_pointer(call.logits);
  a.seeds = data<int64_t>(call.seeds);
  a.positions = data<int64_t>(call.positions);
  a.parameters = data<float>(call.parameters);
  a.parameter_stride = call.parameters.size(0) == 1 ? 0 : static_cast<int64_t>(kParameters);
  a.history = data<int64_t>(call.history);
  a.history_length = call.history.has_value() ? call.history->size(1) : 0;
  a.tokens = mutable_data<int64_t>(call.tokens);
  a.logprobs = mutable_data<float>(call.logprobs);
  a.rows = rows;
  a.vocab = vocab;
  return call;
}

}  // namespace igf
