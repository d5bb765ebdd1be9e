// token_logprobs: allocation and registration of the CUDA execution; the backward pass multiplies chunks again.
//
// The backward pass waits once for the number of rows that a gradient reaches, because the matmuls must know their sizes:
// a few tens of microseconds against the three products of every row that prompts, padding and clipping leave out.
// float16 waits twice more, for the largest gradients that arrive: what its own are multiplied with hangs on them.
#include "ops/token_logprobs/token_logprobs.h"

#include <cmath>

#include "binding/cuda/vocabulary_chunks.h"
#include "ops/token_logprobs/token_logprobs_checks.h"

namespace igf {
namespace {

constexpr const char* kOp = "token_logprobs";

std::tuple<Tensor, Tensor, Tensor> token_logprobs_cuda(Tensor hidden, Tensor weight, Tensor tokens, double temperature) {
  check_token_logprob_inputs(hidden, weight, tokens, temperature);
  const DeviceGuard guard(hidden.get_device_index());
  const DeviceContext context = device_context(hidden);
  const Tensor token = dense(tokens);
  const int64_t count = hidden.size(0);
  const Tensor logprobs = new_empty(hidden, {count}, ScalarType::Float);
  const Tensor entropy = new_empty(hidden, {count}, ScalarType::Float);
  const Tensor statistics = new_empty(hidden, {count, 2}, ScalarType::Float);
  DeviceVocabularyChunks chunks(hidden, weight, std::nullopt, context, {false, false});
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const DeviceVocabularyChunks::Chunk chunk = chunks.logits(i);
    TokenLogprobChunk arguments{};
    arguments.logits = const_pointer(chunk.buffer);
    arguments.tokens = data<int64_t>(token) + chunk.first;
    arguments.logprobs = mutable_data<float>(logprobs) + chunk.first;
    arguments.entropy = mutable_data<float>(entropy) + chunk.first;
    arguments.statistics = mutable_data<float>(statistics) + 2 * chunk.first;
    arguments.count = chunk.count;
    arguments.vocabulary = chunks.vocabulary();
    arguments.stride = chunks.stride();
    arguments.inverse_temperature = static_cast<float>(1.0 / temperature);
    arguments.element = element_of(kOp, chunk.buffer);
    token_logprob_rows_cuda(arguments, context);
  }
  return {logprobs, entropy, statistics};
}

float largest_magnitude(const Tensor& vector) {
  const Tensor largest = call_aten<Tensor>("aten::max", "", call_aten<Tensor>("aten::abs", "", vector));
  const Tensor on_host = torch::stable::to(largest, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  return *static_cast<const float*>(on_host.const_data_ptr());
}

// The power of two that brings a chunk's gradient into float16's range: |p (log p + entropy)| is below 1 + log(V), and
// the largest magnitude of a logit's gradient comes to stand below 2^15 (float16 ends at 65,504).
float half_scale(const Tensor& dlogprobs, const Tensor& dentropy, double temperature, int64_t vocabulary) {
  constexpr int kTop = 15, kMost = 60;
  const double reach = 1.0 + std::log(static_cast<double>(vocabulary));
  const double bound = (largest_magnitude(dlogprobs) + largest_magnitude(dentropy) * reach) / temperature;
  if (!std::isfinite(bound)) return 1.0f;  // the gradient is not finite, whatever its scale
  return std::ldexp(1.0f, std::clamp(kTop - std::ilogb(bound) - 1, -kMost, kMost));
}

// A gradient that is not needed has zero rows: an op returns the same number of tensors always.
std::tuple<Tensor, Tensor> token_logprobs_backward_cuda(Tensor dlogprobs, Tensor dentropy, Tensor hidden, Tensor weight,
                                                        Tensor tokens, Tensor entropy, Tensor statistics,
                                                        double temperature, bool need_dhidden, bool need_dweight) {
  check_token_logprob_inputs(hidden, weight, tokens, temperature);
  check_token_logprob_gradients(hidden, dlogprobs, dentropy, entropy, statistics);
  const DeviceGuard guard(hidden.get_device_index());
  const DeviceContext context = device_context(hidden);
  const Tensor from_logprobs = dense(dlogprobs), from_entropy = dense(dentropy), token = dense(tokens);
  const Tensor row_entropy = dense(entropy), row_statistics = dense(statistics);
  const Tensor rows = places_of(call_aten<Tensor>("aten::logical_or", "", from_logprobs, from_entropy));
  DeviceVocabularyChunks chunks(hidden, weight, rows, context, {need_dhidden, need_dweight});
  const float scale = chunks.dtype() == ScalarType::Half && chunks.size() > 0
                          ? half_scale(from_logprobs, from_entropy, temperature, chunks.vocabulary())
                          : 1.0f;
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const DeviceVocabularyChunks::Chunk chunk = chunks.logits(i);
    TokenLogprobGradientChunk arguments{};
    arguments.logits = mutable_pointer(chunk.buffer);
    arguments.rows = data<int64_t>(rows) + chunk.first;
    arguments.tokens = data<int64_t>(token);
    arguments.dlogprobs = data<float>(from_logprobs);
    arguments.dentropy = data<float>(from_entropy);
    arguments.entropy = data<float>(row_entropy);
    arguments.statistics = data<float>(row_statistics);
    arguments.count = chunk.count;
    arguments.vocabulary = chunks.vocabulary();
    arguments.stride = chunks.stride();
    arguments.inverse_temperature = static_cast<float>(1.0 / temperature);
    arguments.gradient_scale = scale;
    arguments.element = element_of(kOp, chunk.buffer);
    token_logprob_gradient_rows_cuda(arguments, context);
    chunks.add_gradients(chunk, scale);
  }
  const Tensor none = new_empty(hidden, {0, hidden.size(1)}, hidden.scalar_type());
  return {cast(chunks.dhidden().value_or(none), hidden.scalar_type()),
          cast(chunks.dweight().value_or(none), hidden.scalar_type())};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("token_logprobs", TORCH_BOX(&igf::token_logprobs_cuda));
  m.impl("token_logprobs_backward", TORCH_BOX(&igf::token_logprobs_backward_cuda));
}
