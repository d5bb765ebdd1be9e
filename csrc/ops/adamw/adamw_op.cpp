// adamw: schema and the CPU execution.
#include <algorithm>
#include <type_traits>

#include "ops/adamw/adamw.h"
#include "ops/adamw/adamw_lists.h"

namespace igf {
namespace {

template <typename T>
std::vector<AdamWBlock> blocks_of(const AdamWLists& lists, const std::vector<double>& decays, double lr) {
  std::vector<AdamWBlock> blocks;
  for (size_t i = 0; i < lists.params.size(); ++i) {
    T* param = mutable_data<T>(lists.params[i]);
    const T* grad = data<T>(lists.grads[i]);
    float* exp_avg = mutable_data<float>(lists.exp_avgs[i]);
    float* exp_avg_sq = mutable_data<float>(lists.exp_avg_sqs[i]);
    float* master = std::is_same_v<T, float> ? nullptr : mutable_data<float>(lists.masters[i]);
    float* ema = lists.emas.empty() ? nullptr : mutable_data<float>(lists.emas[i]);
    const float keep = adamw_keep(lr, decays[i]);
    const int64_t size = lists.params[i].numel();
    for (int64_t first = 0; first < size; first += kAdamWBlock) {
      blocks.push_back({param + first, grad + first, exp_avg + first, exp_avg_sq + first,
                        master == nullptr ? nullptr : master + first, ema == nullptr ? nullptr : ema + first,
                        std::min(kAdamWBlock, size - first), keep});
    }
  }
  return blocks;
}

Tensor adamw_cpu(TensorList params, TensorList grads, TensorList exp_avgs, TensorList exp_avg_sqs, Tensor step,
                 TensorList masters, TensorList emas, OptionalTensor grad_norm, double lr, double beta1, double beta2,
                 double eps, std::vector<double> weight_decays, bool eps_before_correction, double ema_decay,
                 double max_grad_norm, double grad_scale) {
  AdamWLists lists{params, grads, exp_avgs, exp_avg_sqs, masters, emas};
  check_adamw(lists, weight_decays, step, grad_norm);
  const AdamWNumbers numbers{lr, beta1, beta2, eps, ema_decay, max_grad_norm, grad_scale, eps_before_correction};
  const float norm = grad_norm.has_value() ? *data<float>(*grad_norm) : 0.0f;
  const Tensor applied = new_empty(step, {1}, ScalarType::Bool);
  *mutable_data<bool>(applied) = adamw_norm_is_finite(numbers, norm);
  if (!adamw_norm_is_finite(numbers, norm)) return applied;
  const AdamWStep scalars = adamw_step(numbers, ++*mutable_data<int64_t>(step), norm);
  if (lists.params.empty()) return applied;
  switch_float(kAdamWOp, lists.params.front().scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const std::vector<AdamWBlock> blocks = blocks_of<T>(lists, weight_decays, lr);
    adamw_update<T>(blocks.data(), static_cast<int64_t>(blocks.size()), scalars);
  });
  return applied;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // masters and emas may be empty lists. An infinite max_grad_norm clips nothing.
  m.def(
      "adamw(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!) step, "
      "Tensor(e!)[] masters, Tensor(f!)[] emas, Tensor? grad_norm, float lr, float beta1, float beta2, float eps, "
      "float[] weight_decays, bool eps_before_correction, float ema_decay, float max_grad_norm, float grad_scale) "
      "-> Tensor applied");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("adamw", TORCH_BOX(&igf::adamw_cpu)); }
