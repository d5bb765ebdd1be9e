// token_logprobs: what its CPU and its CUDA execution require of their inputs.
#pragma once

#include "binding/tensor.h"

namespace igf {

inline void check_token_logprob_inputs(const Tensor& hidden, const Tensor& weight, const Tensor& tokens,
                                       double temperature) {
  constexpr const char* kOp = "token_logprobs";
  IGF_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1), kOp,
            ": hidden must be [N, D] and weight [V, D]");
  IGF_CHECK(weight.size(0) > 0, kOp, ": weight must have at least one row");
  IGF_CHECK(temperature > 0, kOp, ": temperature must be above 0, got ", temperature);
  check_dtype(kOp, "weight", weight, hidden.scalar_type());
  check_vector(kOp, "tokens", tokens, hidden.size(0));
  check_dtype(kOp, "tokens", tokens, ScalarType::Long);
}

inline void check_token_logprob_gradients(const Tensor& hidden, const Tensor& dlogprobs, const Tensor& dentropy,
                                          const Tensor& entropy, const Tensor& statistics) {
  constexpr const char* kOp = "token_logprobs";
  const int64_t count = hidden.size(0);
  check_vector(kOp, "dlogprobs", dlogprobs, count);
  check_vector(kOp, "dentropy", dentropy, count);
  check_vector(kOp, "entropy", entropy, count);
  IGF_CHECK(statistics.dim() == 2 && statistics.size(0) == count && statistics.size(1) == 2, kOp,
            ": statistics must be [N, 2]");
  for (const Tensor& tensor : {dlogprobs, dentropy, entropy, statistics}) {
    check_dtype(kOp, "a statistic or its gradient", tensor, ScalarType::Float);
  }
}

}  // namespace igf
