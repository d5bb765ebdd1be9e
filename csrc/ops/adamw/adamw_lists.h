// adamw: the lists of tensors of a call and their checks, the same on every device.
#pragma once

#include "binding/dtype.h"
#include "binding/tensor.h"

namespace igf {

inline constexpr const char* kAdamWOp = "adamw";

struct AdamWLists {
  TensorList params;
  TensorList grads;  // dense after the check
  TensorList exp_avgs;
  TensorList exp_avg_sqs;
  TensorList masters;  // empty for f32 params
  TensorList emas;     // empty for no average

  bool reduced() const { return !params.empty() && is_reduced(params.front().scalar_type()); }

  // The tensor that the step is computed on: the master, or the param itself.
  const Tensor& weights(size_t i) const { return reduced() ? masters[i] : params[i]; }
};

inline void check_adamw_list(const char* name, const TensorList& list, const TensorList& params, ScalarType dtype) {
  IGF_CHECK(list.size() == params.size(), kAdamWOp, ": ", name, " must be as many as params, ", params.size(), ", got ",
            list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    check_same_sizes(kAdamWOp, name, list[i], params[i]);
    check_dtype(kAdamWOp, name, list[i], dtype);
    IGF_CHECK(list[i].is_contiguous(), kAdamWOp, ": ", name, "[", i,
              "] must be contiguous, because it is written in place");
  }
}

// Checks all lists and the other tensors of a call; makes the gradients dense.
inline void check_adamw(AdamWLists& lists, const std::vector<double>& weight_decays, const Tensor& step,
                        const OptionalTensor& grad_norm) {
  check_vector(kAdamWOp, "step", step, 1);
  check_dtype(kAdamWOp, "step", step, ScalarType::Long);
  if (grad_norm.has_value()) check_dtype(kAdamWOp, "grad_norm", *grad_norm, ScalarType::Float);
  IGF_CHECK(weight_decays.size() == lists.params.size(), kAdamWOp, ": weight_decays must be as many as params");
  if (lists.params.empty()) return;
  const ScalarType dtype = lists.params.front().scalar_type();
  for (Tensor& grad : lists.grads) grad = dense(grad);
  check_adamw_list("params", lists.params, lists.params, dtype);
  check_adamw_list("exp_avgs", lists.exp_avgs, lists.params, ScalarType::Float);
  check_adamw_list("exp_avg_sqs", lists.exp_avg_sqs, lists.params, ScalarType::Float);
  check_adamw_list("grads", lists.grads, lists.params, dtype);
  if (lists.reduced()) check_adamw_list("masters", lists.masters, lists.params, ScalarType::Float);
  if (!lists.emas.empty()) check_adamw_list("emas", lists.emas, lists.params, ScalarType::Float);
}

// 1 - lr * decay, what a step leaves of a weight.
inline float adamw_keep(double lr, double decay) { return static_cast<float>(1.0 - lr * decay); }

}  // namespace igf
