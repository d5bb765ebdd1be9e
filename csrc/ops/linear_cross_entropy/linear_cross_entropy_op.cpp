// linear_cross_entropy: schema, checks and the CPU execution, chunk by chunk over counted tokens.
#include "ops/linear_cross_entropy/linear_cross_entropy.h"

#include "binding/vocabulary_chunks.h"
#include "ops/linear_cross_entropy/linear_cross_entropy_checks.h"

namespace igf {
namespace {

constexpr const char* kOp = "linear_cross_entropy";

struct Counted {
  std::vector<int64_t> rows;
  std::vector<int64_t> targets;
};

Counted counted_tokens(const Tensor& targets, const OptionalTensor& loss_mask, int64_t vocabulary) {
  const int64_t* target = data<int64_t>(targets);
  const bool* mask = data<bool>(loss_mask);
  Counted counted;
  for (int64_t i = 0; i < targets.size(0); ++i) {
    if (mask != nullptr && !mask[i]) continue;
    IGF_CHECK(target[i] >= 0 && target[i] < vocabulary, kOp, ": targets[", i, "] must be in [0, ", vocabulary,
              ") because loss_mask counts it, got ", target[i], "; mask it out or mend it");
    counted.rows.push_back(i);
    counted.targets.push_back(target[i]);
  }
  return counted;
}

// The gradients have zero rows where they are not needed: an op returns the same number of tensors always.
std::tuple<Tensor, Tensor, Tensor> linear_cross_entropy_cpu(Tensor hidden, Tensor weight, Tensor targets,
                                                            OptionalTensor loss_mask, bool need_dhidden,
                                                            bool need_dweight) {
  check_cross_entropy_inputs(hidden, weight, targets, loss_mask);
  const Counted counted = counted_tokens(dense(targets), dense(loss_mask), weight.size(0));
  VocabularyChunks chunks(hidden, weight, counted.rows);
  if (need_dhidden) chunks.want_dhidden();
  if (need_dweight) chunks.want_dweight();
  std::vector<double> losses(counted.rows.size());
  for (int64_t i = 0; i < chunks.size(); ++i) {
    const VocabularyChunks::Chunk chunk = chunks.logits(i);
    const CrossEntropyRows rows{counted.targets.data() + chunk.first, losses.data() + chunk.first, chunk.count,
                                chunks.vocabulary(), need_dhidden || need_dweight};
    if (chunks.dtype() == ScalarType::Float) {
      cross_entropy_rows(mutable_data<float>(chunk.logits), rows);
    } else {
      cross_entropy_rows(mutable_data<bfloat16>(chunk.logits), rows);
    }
    chunks.add_gradients(chunk);
  }
  double total = 0.0;
  for (const double loss : losses) total += loss;
  const Tensor result = new_empty(hidden, {}, ScalarType::Float);
  *mutable_data<float>(result) = static_cast<float>(total);
  return {result, chunks.dhidden().value_or(new_empty(hidden, {0, hidden.size(1)}, chunks.dtype())),
          chunks.dweight().value_or(new_empty(hidden, {0, hidden.size(1)}, chunks.dtype()))};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "linear_cross_entropy(Tensor hidden, Tensor weight, Tensor targets, Tensor? loss_mask, bool need_dhidden, "
      "bool need_dweight) -> (Tensor loss, Tensor dhidden, Tensor dweight)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("linear_cross_entropy", TORCH_BOX(&igf::linear_cross_entropy_cpu));
}
