// sample_token: schema and the CPU execution.
#include "binding/dtype.h"
#include "ops/sample_token/sample_token_call.h"

namespace igf {
namespace {

std::tuple<Tensor, Tensor> sample_token_cpu(Tensor logits, Tensor seeds, Tensor positions, Tensor parameters,
                                            OptionalTensor history) {
  const SampleTokenCall call = sample_token_call(logits, seeds, positions, parameters, history);
  switch_float("sample_token", call.logits.scalar_type(),
               [&](auto tag) { sample_token_forward<decltype(tag)>(call.arguments); });
  return {call.tokens, call.logprobs};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // parameters: temperature, top_k, top_p, min_p, repetition_penalty; [B, 5], or [1, 5] for all rows, on any device.
  m.def(
      "sample_token(Tensor logits, Tensor seeds, Tensor positions, Tensor parameters, Tensor? history) -> "
      "(Tensor tokens, Tensor logprobs)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("sample_token", TORCH_BOX(&igf::sample_token_cpu)); }
