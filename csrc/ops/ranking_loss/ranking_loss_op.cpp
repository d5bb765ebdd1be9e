// ranking_loss: schema, checks and the CPU execution.
#include "ops/ranking_loss/ranking_loss.h"

#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "ranking_loss";

void check_offsets(const int64_t* offsets, int64_t groups, int64_t answers) {
  IGF_CHECK(offsets[0] == 0, kOp, ": group_offsets must start at 0, got ", offsets[0]);
  for (int64_t g = 0; g < groups; ++g) {
    IGF_CHECK(offsets[g] <= offsets[g + 1], kOp, ": group_offsets must not fall, got ", offsets[g], " then ",
              offsets[g + 1], " at group ", g);
  }
  IGF_CHECK(offsets[groups] == answers, kOp, ": group_offsets must end at the number of scores, ", answers, ", got ",
            offsets[groups]);
}

template <typename T>
Tensor scalar(const Tensor& like, ScalarType dtype, T value) {
  const Tensor tensor = new_empty(like, {}, dtype);
  *mutable_data<T>(tensor) = value;
  return tensor;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> ranking_loss_cpu(Tensor scores, Tensor ranks, Tensor group_offsets,
                                                                   bool with_gradient) {
  IGF_CHECK(scores.dim() == 1, kOp, ": scores must be a vector");
  IGF_CHECK(group_offsets.dim() == 1 && group_offsets.size(0) >= 1, kOp, ": group_offsets must be a vector, not empty");
  check_dtype(kOp, "scores", scores, ScalarType::Float);
  check_dtype(kOp, "ranks", ranks, ScalarType::Long);
  check_dtype(kOp, "group_offsets", group_offsets, ScalarType::Long);
  check_vector(kOp, "ranks", ranks, scores.size(0));
  const Tensor s = dense(scores), r = dense(ranks), offsets = dense(group_offsets);
  const int64_t groups = offsets.size(0) - 1;
  check_offsets(data<int64_t>(offsets), groups, s.size(0));
  const Tensor gradient = new_empty(s, {with_gradient ? s.size(0) : 0}, ScalarType::Float);
  const RankingLossResult result =
      ranking_loss_forward({data<float>(s), data<int64_t>(r), data<int64_t>(offsets),
                            with_gradient ? mutable_data<float>(gradient) : nullptr, groups});
  return {scalar(s, ScalarType::Float, static_cast<float>(result.loss)),
          scalar(s, ScalarType::Long, result.num_prompts), scalar(s, ScalarType::Long, result.num_pairs),
          scalar(s, ScalarType::Float, static_cast<float>(result.num_correct)), gradient};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // The gradient is that of the loss; without with_gradient it has no elements.
  m.def(
      "ranking_loss(Tensor scores, Tensor ranks, Tensor group_offsets, bool with_gradient) -> "
      "(Tensor loss, Tensor num_prompts, Tensor num_pairs, Tensor num_correct, Tensor grad_scores)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("ranking_loss", TORCH_BOX(&igf::ranking_loss_cpu)); }
