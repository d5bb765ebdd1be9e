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
// p's place, and p is written), 8 more with ema.
#pragma once

#include <cmath>
#include <cstdint>

#include "device/context.h"
#include "device/math.h"
#include "device/tensor_table.h"

namespace igf {

// The numbers of a call.
struct AdamWNumbers {
  double lr;
  double beta1;
  double beta2;
  double eps;
  double ema_decay;
  double max_grad_norm;  // infinite: no clipping
  double grad_scale;
  bool eps_before_correction;
};

// What they come to in step t.
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

// beta^t by repeated squaring: the relative error is at most t 2^-52, so that of 1 - beta^t stays below
// 2^-52 / (1 - beta) for every t: 1e-12 for beta = 0.9998.
IGF_INLINE double adamw_power(double beta, int64_t t) {
  double result = 1.0;
  for (double square = beta; t > 0; t /= 2, square *= square) {
    if (t % 2 == 1) result *= square;
  }
  return result;
}

// Tells whether a step with this norm may be made.
IGF_INLINE bool adamw_norm_is_finite(const AdamWNumbers& n, float grad_norm) {
  const double norm = static_cast<double>(grad_norm) * n.grad_scale;
  return norm - norm == 0.0;  // NaN for infinity and NaN
}

// The scalars of step t, counted from 1. grad_norm: of all gradients, before grad_scale; 0 where there is none to clip.
IGF_INLINE AdamWStep adamw_step(const AdamWNumbers& n, int64_t t, float grad_norm) {
  // 1e-6: a norm of zero divides nothing by zero.
  const double clip = n.max_grad_norm / (static_cast<double>(grad_norm) * n.grad_scale + 1e-6);
  const double correction1 = 1.0 - adamw_power(n.beta1, t);
  const double correction2 = sqrt(1.0 - adamw_power(n.beta2, t));
  AdamWStep step;
  step.grad_factor = static_cast<float>(n.grad_scale * (clip < 1.0 ? clip : 1.0));
  step.beta1 = static_cast<float>(n.beta1);
  step.one_minus_beta1 = static_cast<float>(1.0 - n.beta1);
  step.beta2 = static_cast<float>(n.beta2);
  step.one_minus_beta2 = static_cast<float>(1.0 - n.beta2);
  step.step_size = static_cast<float>(n.eps_before_correction ? n.lr * correction2 / correction1 : n.lr / correction1);
  step.denominator_factor = static_cast<float>(n.eps_before_correction ? 1.0 : 1.0 / correction2);
  step.eps = static_cast<float>(n.eps);
  step.one_minus_ema_decay = static_cast<float>(1.0 - n.ema_decay);
  return step;
}

// CPU: runs of at most kAdamWBlock elements of one parameter and its state.
inline constexpr int64_t kAdamWBlock = 1 << 14;

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

// T: the dtype of param and grad.
template <typename T>
void adamw_update(const AdamWBlock* blocks, int64_t count, const AdamWStep& step);

// CUDA: one parameter and its state, a row of the table that the kernel walks over.
inline constexpr int64_t kAdamWChunk = 2048;

struct AdamWRow {
  const void* grad;
  float* weights;  // the master, or param where that is f32
  float* exp_avg;
  float* exp_avg_sq;
  float* ema;     // null when there is none
  void* rounded;  // the reduced param; null when param is f32
  int64_t size;
  float keep;  // 1 - lr * decay
  int32_t first_chunk;
};

struct AdamWCuda {
  TensorTable<AdamWRow> table;
  int64_t* step;           // [1]: read, and one more written unless the norm is not finite
  bool* applied;           // [1]: written
  const float* grad_norm;  // [], or null
  AdamWNumbers numbers;
  uint32_t* arrivals;  // set by the launcher
};

// One launch for all tensors, after those that carry the table: `words` to table.rows on.
void adamw_cuda(AdamWCuda arguments, const std::vector<int64_t>& words, int64_t* table_memory, Element element,
                bool with_ema, const DeviceContext& context);

}  // namespace igf
