// adamw: schema, checks, the scalars of a step and the CPU execution.
#include "ops/adamw/adamw.h"

#include <algorithm>
#include <cmath>

#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "adamw";

struct State {
  const TensorList& params;
  const TensorList& grads;
  const TensorList& exp_avgs;
  const TensorList& exp_avg_sqs;
  const TensorList& masters;
  const TensorList& emas;
};

void check_list(const char* name, const TensorList& list, const TensorList& params, ScalarType dtype) {
  IGF_CHECK(list.size() == params.size(), kOp, ": ", name, " must be as many as params, ", params.size(), ", got ",
            list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    check_same_sizes(kOp, name, list[i], params[i]);
    check_dtype(kOp, name, list[i], dtype);
    IGF_CHECK(list[i].is_contiguous(), kOp, ": ", name, "[", i, "] must be contiguous, because it is written in place");
  }
}

void check_state(const State& state, const Tensor& step) {
  check_vector(kOp, "step", step, 1);
  check_dtype(kOp, "step", step, ScalarType::Long);
  if (state.params.empty()) return;
  const ScalarType dtype = state.params.front().scalar_type();
  check_list("params", state.params, state.params, dtype);
  check_list("exp_avgs", state.exp_avgs, state.params, ScalarType::Float);
  check_list("exp_avg_sqs", state.exp_avg_sqs, state.params, ScalarType::Float);
  check_list("grads", state.grads, state.params, dtype);
  if (is_reduced(dtype)) check_list("masters", state.masters, state.params, ScalarType::Float);
  if (!state.emas.empty()) check_list("emas", state.emas, state.params, ScalarType::Float);
}

template <typename T>
std::vector<AdamWBlock> blocks_of(const State& state, const std::vector<double>& decays, double lr) {
  std::vector<AdamWBlock> blocks;
  for (size_t i = 0; i < state.params.size(); ++i) {
    T* param = mutable_data<T>(state.params[i]);
    const T* grad = data<T>(state.grads[i]);
    float* exp_avg = mutable_data<float>(state.exp_avgs[i]);
    float* exp_avg_sq = mutable_data<float>(state.exp_avg_sqs[i]);
    float* master = std::is_same_v<T, float> ? nullptr : mutable_data<float>(state.masters[i]);
    float* ema = state.emas.empty() ? nullptr : mutable_data<float>(state.emas[i]);
    const float keep = static_cast<float>(1.0 - lr * decays[i]);
    const int64_t size = state.params[i].numel();
    for (int64_t first = 0; first < size; first += kAdamWBlock) {
      blocks.push_back({param + first, grad + first, exp_avg + first, exp_avg_sq + first,
                        master == nullptr ? nullptr : master + first, ema == nullptr ? nullptr : ema + first,
                        std::min(kAdamWBlock, size - first), keep});
    }
  }
  return blocks;
}

AdamWStep step_of(int64_t t, double lr, double beta1, double beta2, double eps, bool eps_before_correction,
                  double ema_decay, double grad_factor) {
  const double correction1 = 1.0 - std::pow(beta1, static_cast<double>(t));
  const double correction2 = std::sqrt(1.0 - std::pow(beta2, static_cast<double>(t)));
  AdamWStep step;
  step.grad_factor = static_cast<float>(grad_factor);
  step.beta1 = static_cast<float>(beta1);
  step.one_minus_beta1 = static_cast<float>(1.0 - beta1);
  step.beta2 = static_cast<float>(beta2);
  step.one_minus_beta2 = static_cast<float>(1.0 - beta2);
  step.step_size = static_cast<float>(eps_before_correction ? lr * correction2 / correction1 : lr / correction1);
  step.denominator_factor = static_cast<float>(eps_before_correction ? 1.0 : 1.0 / correction2);
  step.eps = static_cast<float>(eps);
  step.one_minus_ema_decay = static_cast<float>(1.0 - ema_decay);
  return step;
}

Tensor adamw_cpu(TensorList params, TensorList grads, TensorList exp_avgs, TensorList exp_avg_sqs, Tensor step,
                 TensorList masters, TensorList emas, OptionalTensor grad_norm, double lr, double beta1, double beta2,
                 double eps, std::vector<double> weight_decays, bool eps_before_correction, double ema_decay,
                 double max_grad_norm, double grad_scale) {
  for (Tensor& grad : grads) grad = dense(grad);
  const State state{params, grads, exp_avgs, exp_avg_sqs, masters, emas};
  check_state(state, step);
  IGF_CHECK(weight_decays.size() == params.size(), kOp, ": weight_decays must be as many as params");
  const Tensor applied = new_empty(step, {1}, ScalarType::Bool);
  double grad_factor = grad_scale;
  if (grad_norm.has_value()) {
    check_dtype(kOp, "grad_norm", *grad_norm, ScalarType::Float);
    const double norm = static_cast<double>(*data<float>(*grad_norm)) * grad_scale;
    *mutable_data<bool>(applied) = std::isfinite(norm);
    if (!std::isfinite(norm)) return applied;
    // 1e-6: a norm of zero divides nothing by zero.
    grad_factor *= std::min(1.0, max_grad_norm / (norm + 1e-6));
  } else {
    *mutable_data<bool>(applied) = true;
  }
  const int64_t t = ++*mutable_data<int64_t>(step);
  const AdamWStep scalars =
      step_of(t, lr, beta1, beta2, eps, eps_before_correction, ema_decay, grad_factor);
  if (params.empty()) return applied;
  switch_float(kOp, params.front().scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const std::vector<AdamWBlock> blocks = blocks_of<T>(state, weight_decays, lr);
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
