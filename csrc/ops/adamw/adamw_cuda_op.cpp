// adamw: the table of tensors and registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/adamw/adamw.h"
#include "ops/adamw/adamw_lists.h"

namespace igf {
namespace {

// The last tensor first: after grad_norm has walked over the list, its end is what the cache holds of the gradients.
TensorTableBuilder<AdamWRow> table_of(const AdamWLists& lists, const std::vector<double>& decays, double lr) {
  TensorTableBuilder<AdamWRow> table(kAdamWChunk);
  for (size_t i = lists.params.size(); i-- > 0;) {
    AdamWRow row{};
    row.grad = const_pointer(lists.grads[i]);
    row.weights = mutable_data<float>(lists.weights(i));
    row.exp_avg = mutable_data<float>(lists.exp_avgs[i]);
    row.exp_avg_sq = mutable_data<float>(lists.exp_avg_sqs[i]);
    row.ema = lists.emas.empty() ? nullptr : mutable_data<float>(lists.emas[i]);
    row.rounded = lists.reduced() ? mutable_pointer(lists.params[i]) : nullptr;
    row.size = lists.params[i].numel();
    row.keep = adamw_keep(lr, decays[i]);
    table.add(row, row.size);
  }
  return table;
}

Tensor adamw_cuda_op(TensorList params, TensorList grads, TensorList exp_avgs, TensorList exp_avg_sqs, Tensor step,
                     TensorList masters, TensorList emas, OptionalTensor grad_norm, double lr, double beta1,
                     double beta2, double eps, std::vector<double> weight_decays, bool eps_before_correction,
                     double ema_decay, double max_grad_norm, double grad_scale) {
  AdamWLists lists{params, grads, exp_avgs, exp_avg_sqs, masters, emas};
  const DeviceGuard guard(step.get_device_index());
  check_adamw(lists, weight_decays, step, grad_norm);
  const TensorTableBuilder<AdamWRow> table = table_of(lists, weight_decays, lr);
  const Tensor memory = new_empty(step, {table.word_count()}, ScalarType::Long);
  const Tensor applied = new_empty(step, {1}, ScalarType::Bool);
  AdamWCuda arguments{};
  arguments.table = table.table(data<int64_t>(memory));
  arguments.step = mutable_data<int64_t>(step);
  arguments.applied = mutable_data<bool>(applied);
  arguments.grad_norm = data<float>(grad_norm);
  arguments.numbers = {lr, beta1, beta2, eps, ema_decay, max_grad_norm, grad_scale, eps_before_correction};
  const Element element = params.empty() ? Element::kFloat : element_of(kAdamWOp, params.front());
  adamw_cuda(arguments, table.words(), mutable_data<int64_t>(memory), element, !emas.empty(), device_context(step));
  return applied;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) { m.impl("adamw", TORCH_BOX(&igf::adamw_cuda_op)); }
