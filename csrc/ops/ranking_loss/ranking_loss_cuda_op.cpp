// ranking_loss: checks, allocation and registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/ranking_loss/ranking_loss.h"

namespace igf {
namespace {

constexpr const char* kOp = "ranking_loss";

// The offsets are looked at by the kernel: to read them here would wait for the device.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> ranking_loss_cuda_op(Tensor scores, Tensor ranks,
                                                                       Tensor group_offsets, bool with_gradient) {
  IGF_CHECK(scores.dim() == 1, kOp, ": scores must be a vector");
  IGF_CHECK(group_offsets.dim() == 1 && group_offsets.size(0) >= 1, kOp, ": group_offsets must be a vector, not empty");
  check_dtype(kOp, "scores", scores, ScalarType::Float);
  check_dtype(kOp, "ranks", ranks, ScalarType::Long);
  check_dtype(kOp, "group_offsets", group_offsets, ScalarType::Long);
  check_vector(kOp, "ranks", ranks, scores.size(0));
  const DeviceGuard guard(scores.get_device_index());
  const Tensor s = dense(scores), r = dense(ranks), offsets = dense(group_offsets);
  const int64_t answers = s.size(0);
  const int64_t groups = offsets.size(0) - 1;
  const Tensor loss = new_empty(s, {}, ScalarType::Float);
  const Tensor num_prompts = new_empty(s, {}, ScalarType::Long);
  const Tensor num_pairs = new_empty(s, {}, ScalarType::Long);
  const Tensor num_correct = new_empty(s, {}, ScalarType::Float);
  const Tensor gradient = new_empty(s, {with_gradient ? answers : 0}, ScalarType::Float);
  const Tensor partials = new_empty(s, {ranking_loss_partials(groups)}, ScalarType::Double);
  RankingLossCuda arguments{};
  arguments.scores = data<float>(s);
  arguments.ranks = data<int64_t>(r);
  arguments.offsets = data<int64_t>(offsets);
  arguments.gradient = with_gradient ? mutable_data<float>(gradient) : nullptr;
  arguments.partials = mutable_data<double>(partials);
  arguments.loss = mutable_data<float>(loss);
  arguments.num_prompts = mutable_data<int64_t>(num_prompts);
  arguments.num_pairs = mutable_data<int64_t>(num_pairs);
  arguments.num_correct = mutable_data<float>(num_correct);
  arguments.groups = groups;
  arguments.answers = answers;
  ranking_loss_cuda(arguments, device_context(s));
  return {loss, num_prompts, num_pairs, num_correct, gradient};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("ranking_loss", TORCH_BOX(&igf::ranking_loss_cuda_op));
}
