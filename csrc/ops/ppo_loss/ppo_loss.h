// The PPO loss with its gradients, in one pass over the tokens.
//
//   r = exp(logprob - old_logprob), c = clip(value, old_value +- cliprange_value), d = ref_logprob - logprob
//   policy = max(-A r, -A clip(r, 1 +- cliprange))           Schulman et al. 2017, arXiv:1707.06347, eq. 7
//   value  = 0.5 max((value - R)^2, (c - R)^2)               Ziegler et al. 2019, arXiv:1909.08593, released code
//   kl     = e^d - d - 1                                     Schulman 2020, "Approximating KL divergence", k3
//   loss   = sum over counted tokens of (policy + vf_coef value - entropy_coef entropy + kl_loss_coef kl) / denominator
// A clipped term is taken only when it is strictly the larger one; its gradient is then 0.
//
// Shapes: all inputs and gradients [count] f32, mask [count] bool; sums [kPpoSums]: policy, value, entropy, policy
// clipped, value clipped, 0.5 (logprob - old_logprob)^2, r, kl, each summed over the counted tokens, not divided.
// Gradients: grad_logprobs = d (policy + kl_loss_coef kl) / d logprob, grad_values = d value / d value; what they are
// multiplied by, the loss's own gradient / denominator and vf_coef, comes in the backward pass, so that nothing is
// rounded twice.
// Numbers: tokens in f32; sums in f32 within blocks of a fixed size, then in double in order: the bits do not depend on
// the number of threads. What stands at an uncounted place is never read into a result; gradients there are 0.
// Memory: 25 bytes read a token (33 with entropy and reference), 8 written with gradients.
#pragma once

#include <cstdint>

namespace igf {

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
  int64_t count;
  float cliprange;
  float cliprange_value;
  float kl_loss_coef;
};

void ppo_loss_forward(const PpoLossArguments& arguments, double (&sums)[kPpoSums]);

}  // namespace igf
