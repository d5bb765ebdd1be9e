// sample_token: registration of the CUDA execution.
#include <algorithm>

#include "binding/cuda/context.h"
#include "ops/sample_token/sample_token_call.h"
#include "ops/sample_token/sample_token_cuda.h"

namespace igf {
namespace {

std::tuple<Tensor, Tensor> sample_token_device(Tensor logits, Tensor seeds, Tensor positions, Tensor parameters,
                                               OptionalTensor history) {
  const DeviceGuard guard(logits.get_device_index());
  SampleTokenCall call = sample_token_call(logits, seeds, positions, parameters, history);
  IGF_CHECK(call.arguments.history_length == 0 || call.arguments.vocab <= kMostMarkedTokens,
            "sample_token: with a history, logits must have at most ", kMostMarkedTokens, " columns on a GPU, got ",
            call.arguments.vocab);
  // Parameters that all rows share may be given in the CPU's memory: they then travel with the launch, and no copy to
  // the device waits for it.
  if (call.parameters.is_cpu() && call.parameters.size(0) == 1) {
    std::copy_n(call.arguments.parameters, static_cast<int>(kParameters), call.arguments.shared_parameters);
    call.arguments.parameters = nullptr;
  }
  call.arguments.element = element_of("sample_token", call.logits);
  const DeviceContext context = device_context(call.logits);
  const int64_t words = sample_token_partial_words(call.arguments, context);
  const Tensor partials = new_empty(call.logits, {words}, ScalarType::Int);
  sample_token_cuda(call.arguments, mutable_data<uint32_t>(partials), context);
  return {call.tokens, call.logprobs};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("sample_token", TORCH_BOX(&igf::sample_token_device));
}
