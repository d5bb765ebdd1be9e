// token_logprobs: schema, checks and the CPU execution, chunk by chunk; the backward pass multiplies chunks again.
#include "ops/token_logprobs/token_logprobs.h"

#include <numeric>

#include "binding/vocabulary_chunks.h"
#include "ops/token_logprobs/token_logprobs_checks.h"

namespace igf {
namespace {

constexpr const char* kOp = "token_logprobs";

void check_tokens(const Tensor& tokens, int64_t vocabulary) {
  const int64_t* token = data<int64_t>(tokens);
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    IGF_CHECK(token[i] >= 0 && token[i] < vocabulary, kOp, ": tokens[", i, "] must be in [0, ", vocabulary, "), got ",
              token[i]);
  }
}

std::tuple<Tensor, Tensor, Tensor> token_logprobs_cpu(Tensor hidden, Tensor weight, Tensor tokens, double temperature) {
  check_token_logprob_inputs(hidden, weight, tokens, temperature);
  const Tensor token = dense(tokens);
  check_tokens(token, weight.size(0));
  const int64_t count = hidden.size(0);
  const Tensor logprobs = new_empty(hidden, {count}, ScalarType::Float);
  const Tensor entropy = new_empty(hidden, {count}, ScalarType::Float);
  const Tensor statistics = new_empty(hidden, {count, 2}, ScalarType::Float);
  std::vector<int64_t> all(count);
  std::iota(all.begin(), all.end(), int64_t{0});
  VocabularyChunks chunks(hidden, weight, std::move(all));
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const VocabularyChunks::Chunk chunk = chunks.logits(i);
    const TokenLogprobRows rows{data<int64_t>(token) + chunk.first,
                                mutable_data<float>(logprobs) + chunk.first,
                                mutable_data<float>(entropy) + chunk.first,
                                mutable_data<float>(statistics) + 2 * chunk.first,
                                chunk.count,
                                chunks.vocabulary(),
                                static_cast<float>(1.0 / temperature)};
    if (chunks.dtype() == ScalarType::Float) {
      token_logprob_rows(data<float>(chunk.logits), rows);
    } else {
      token_logprob_rows(data<bfloat16>(chunk.logits), rows);
    }
  }
  return {logprobs, entropy, statistics};
}

// A gradient that is not needed has zero rows: an op returns the same number of tensors always.
std::tuple<Tensor, Tensor> token_logprobs_backward_cpu(Tensor dlogprobs, Tensor dentropy, Tensor hidden, Tensor weight,
                                                       Tensor tokens, Tensor entropy, Tensor statistics,
                                                       double temperature, bool need_dhidden, bool need_dweight) {
  check_token_logprob_inputs(hidden, weight, tokens, temperature);
  check_token_logprob_gradients(hidden, dlogprobs, dentropy, entropy, statistics);
  const Tensor from_logprobs = dense(dlogprobs), from_entropy = dense(dentropy), token = dense(tokens);
  const Tensor row_entropy = dense(entropy), row_statistics = dense(statistics);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < hidden.size(0); ++i) {
    // NaN is unequal to 0 and goes through.
    if (data<float>(from_logprobs)[i] != 0.0f || data<float>(from_entropy)[i] != 0.0f) rows.push_back(i);
  }
  VocabularyChunks chunks(hidden, weight, rows);
  if (need_dhidden) chunks.want_dhidden();
  if (need_dweight) chunks.want_dweight();
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const VocabularyChunks::Chunk chunk = chunks.logits(i);
    const TokenLogprobGradientRows gradient{rows.data() + chunk.first,
                                            data<int64_t>(token),
                                            data<float>(from_logprobs),
                                            data<float>(from_entropy),
                                            data<float>(row_entropy),
                                            data<float>(row_statistics),
                                            chunk.count,
                                            chunks.vocabulary(),
                                            static_cast<float>(1.0 / temperature)};
    if (chunks.dtype() == ScalarType::Float) {
      token_logprob_gradient_rows(mutable_data<float>(chunk.logits), gradient);
    } else {
      token_logprob_gradient_rows(mutable_data<bfloat16>(chunk.logits), gradient);
    }
    chunks.add_gradients(chunk);
  }
  const Tensor none = new_empty(hidden, {0, hidden.size(1)}, hidden.scalar_type());
  return {cast(chunks.dhidden().value_or(none), hidden.scalar_type()),
          cast(chunks.dweight().value_or(none), hidden.scalar_type())};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "token_logprobs(Tensor hidden, Tensor weight, Tensor tokens, float temperature) -> "
      "(Tensor logprobs, Tensor entropy, Tensor statistics)");
  m.def(
      "token_logprobs_backward(Tensor dlogprobs, Tensor dentropy, Tensor hidden, Tensor weight, Tensor tokens, "
      "Tensor entropy, Tensor statistics, float temperature, bool need_dhidden, bool need_dweight) -> "
      "(Tensor dhidden, Tensor dweight)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("token_logprobs", TORCH_BOX(&igf::token_logprobs_cpu));
  m.impl("token_logprobs_backward", TORCH_BOX(&igf::token_logprobs_backward_cpu));
}
