// AdamW over a list of tensors, in place, with clipping and a moving average of the weights in the same pass.
//
//   g = grad * grad_factor,   grad_factor = grad_scale * min(1, max_grad_norm / (grad_norm * grad_scale + 1e-6))
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr decay) - step_size m / (sqrt(v) denominator_factor + eps)
//   ema = ema_decay ema + (1 - ema_decay) p
// eps after bias correction ("torch"):       step_size = lr / (1 - beta1^t),  denominator_factor = 1 / sqrt(1 - beta2^t)
// eps before it ("tensorflow"):              step_size = lr sqrt(1 - beta2^t) / (1 - beta1^t),  denominator_factor = 1
// Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; Kingma and Ba 2015, arXiv:1412.6980, algorithm 1
// (its last paragraph of section 2 gives the "tensorflow" order).
//
// Dtypes: param and grad share f32, bf16 or f16; m, v, master and ema are f32. Reduced params have a master, from which
// they are rounded. Memory: 28 bytes an element (f32: p, m, v read and written, grad read; reduced: the master takes
// p's place), 8 more with ema.
#pragma once

#include <cstdint>

namespace igf {

inline constexpr int64_t kAdamWBlock = 1 << 14;

// A run of at most kAdamWBlock elements of one parameter and its state.
struct AdamWBlock {
  void* param;
  const void* grad;
  float* exp_avg;
  float* exp_avg_sq;
  float* master;  // null when param is f32
  float* ema;     // null when there is none
  int64_t size;
  float keep;  // 1 - lr * decay
};

struct AdamWStep {
  float grad_factor;
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float step_size;
  float denominator_factor;
  float eps;
  float one_minus_ema_decay;
};

// T: the dtype of param and grad.
template <typename T>
void adamw_update(const AdamWBlock* blocks, int64_t count, const AdamWStep& step);

}  // namespace igf
