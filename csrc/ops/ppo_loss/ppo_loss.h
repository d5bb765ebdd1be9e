// The PPO loss with its gradients, in one pass over the tokens.
//
//   r = exp(logprob - old_logprob), c = clip(value, old_value +- cliprange_value), d = ref_logprob - logprob
//   policy = max(-A r, -A clip(r, 1 +- cliprange))           Schulman et al. 2017, arXiv:1707.06347, eq. 7
//   value  = 0.5 max((value - R)^2, (c - R)^2)               Ziegler et al. 2019, arXiv:1909.08593, released code
//   kl     = e^d - d - 1                                     Schulman 2020, "Approximating KL divergence", k3
//   loss   = sum over counted tokens of (policy + vf_coef value - entropy_coef entropy + kl_loss_coef kl) / denominator
// A clipped term is taken only when it is strictly the larger one; its gradient is then 0.
//
// Shapes: all inputs and gradients [count] f32, mask [count] bool; loss one f32; stats [kPpoSums] f32: policy, value,
// entropy, policy clipped, value clipped, 0.5 (logprob - old_logprob)^2, r, kl, each summed over the counted tokens and
// divided by the denominator.
// Gradients: the forward pass writes d loss / d logprob and d loss / d value whole, because a loss is nearly always
// where the backward pass begins. The backward pass then multiplies them in place by the gradient that the loss itself
// receives, and touches nothing when that is 1.
// Numbers: tokens in f32; sums of a few tokens in f32, of all in double in a fixed order: the bits do not depend on the
// number of threads. The factor 1 / denominator is taken with more digits than a float has, so that it costs a
// gradient one rounding and not two. What stands at an uncounted place is never read into a result; gradients there
// are 0.
// Memory: 25 bytes read a token (29 with entropy or reference, 33 with both), 8 written: 33 for both passes when the
// gradient of the loss is 1, else 49. The gradient of the entropy, where it is wanted, reads 1 byte and writes 4.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

enum PpoSum { kPolicy, kValue, kEntropy, kPolicyClipped, kValueClipped, kApproxKl, kRatio, kKl };
constexpr int kPpoSums = 8;

struct PpoLossArguments {
  const float* logprobs;
  const float* old_logprobs;
  const float* advantages;
  const float* values;
  const float* old_values;
  const float* returns;
  const uint8_t* mask;        // torch.bool: 1 = counts
  const float* entropy;       // null: none
  const float* ref_logprobs;  // null: none
  float* grad_logprobs;       // null: not wanted, then grad_values is null too
  float* grad_values;
  float* loss;
  float* stats;
  int64_t count;
  float cliprange;
  float cliprange_value;
  double vf_coef;
  double entropy_coef;
  double kl_loss_coef;
  double denominator;
  // CUDA alone:
  double* partials;  // [ppo_loss_tiles(count), kPpoSums]
  bool aligned;      // every float pointer stands on 16 bytes, the mask on 4
};

struct PpoLossBackward {
  float* grad_logprobs;  // [count], multiplied in place by *dloss
  float* grad_values;
  const uint8_t* mask;  // null when the entropy's gradient is not wanted
  const float* dloss;   // one number: the gradient of the loss
  float* grad_entropy;  // [count], null when not wanted
  int64_t count;
  float entropy_coef;
  float denominator;
  bool aligned;  // CUDA alone
};

void ppo_loss_forward(const PpoLossArguments& arguments);
void ppo_loss_backward(const PpoLossBackward& arguments);

void ppo_loss_forward_cuda(const PpoLossArguments& arguments, const DeviceContext& context);
void ppo_loss_backward_cuda(const PpoLossBackward& arguments, const DeviceContext& context);

// How many tiles the CUDA kernel cuts the tokens into: a row of `partials` each.
int64_t ppo_loss_tiles(int64_t count);

}  // namespace igf
