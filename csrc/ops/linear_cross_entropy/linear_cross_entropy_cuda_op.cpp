// linear_cross_entropy: allocation and registration of the CUDA execution, chunk by chunk over counted tokens.
//
// With a loss_mask the host waits once for the number of counted tokens, because the matmuls must know their sizes: a few
// tens of microseconds against the three products of every uncounted token. Without one nothing waits, and the op can be
// captured into a graph.
#include "binding/cuda/vocabulary_chunks.h"
#include "ops/linear_cross_entropy/linear_cross_entropy.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_checks.h"

namespace igf {
namespace {

constexpr const char* kOp = "linear_cross_entropy";

// Of float16: |dloss/dz| is at most 1, and float16 reaches 65,504. Its smallest normal number is then 2^-29.
constexpr float kHalfScale = 0x1p15f;

std::tuple<Tensor, Tensor, Tensor> linear_cross_entropy_cuda(Tensor hidden, Tensor weight, Tensor targets,
                                                             OptionalTensor loss_mask, bool need_dhidden,
                                                             bool need_dweight) {
  check_cross_entropy_inputs(hidden, weight, targets, loss_mask);
  const DeviceGuard guard(hidden.get_device_index());
  const DeviceContext context = device_context(hidden);
  OptionalTensor rows;
  if (loss_mask.has_value()) rows = places_of(*loss_mask);
  const Tensor counted = rows.has_value() ? picked(targets, *rows) : dense(targets);
  DeviceVocabularyChunks chunks(hidden, weight, rows, context, {need_dhidden, need_dweight});
  const Tensor loss = chunks.size() == 0 ? new_zeros(hidden, {}, ScalarType::Float)
                                         : new_empty(hidden, {}, ScalarType::Float);
  const Tensor losses = new_empty(hidden, {chunks.rows_in_all()}, ScalarType::Float);
  const float scale = hidden.scalar_type() == ScalarType::Half ? kHalfScale : 1.0f;
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const DeviceVocabularyChunks::Chunk chunk = chunks.logits(i);
    CrossEntropyChunk arguments{};
    arguments.logits = mutable_pointer(chunk.buffer);
    arguments.targets = data<int64_t>(rows_view(counted, chunk.first, chunk.count));
    arguments.losses = mutable_data<float>(losses);
    arguments.loss = i + 1 == chunks.size() ? mutable_data<float>(loss) : nullptr;
    arguments.first = chunk.first;
    arguments.count = chunk.count;
    arguments.all = chunks.rows_in_all();
    arguments.vocabulary = chunks.vocabulary();
    arguments.stride = chunks.stride();
    arguments.gradient_scale = need_dhidden || need_dweight ? scale : 0.0f;
    arguments.element = element_of(kOp, chunk.buffer);
    cross_entropy_rows_cuda(arguments, context);
    chunks.add_gradients(chunk, scale);
  }
  const Tensor none = new_empty(hidden, {0, hidden.size(1)}, DeviceVocabularyChunks::result_dtype(chunks.dtype()));
  return {loss, chunks.dhidden().value_or(none), chunks.dweight().value_or(none)};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("linear_cross_entropy", TORCH_BOX(&igf::linear_cross_entropy_cuda));
}
