// Log-probability of given tokens and entropy of the distribution they come from, without whole logits.
//
//   z_i = hidden_i @ weight.T / temperature                     [V]
//   p_iv = exp(z_iv) / sum_u exp(z_iu)
//   logprob_i = log p_i,token_i,   entropy_i = -sum_v p_iv log p_iv          (nats)
//   d/dz_iv = dlogprob_i ([v = token_i] - p_iv) - dentropy_i p_iv (log p_iv + entropy_i)
// Source: the log pi(y|x) of Ouyang et al. 2022, arXiv:2203.02155, eq. 2, a token at a time; entropy after Shannon 1948.
//
// Shapes: hidden [N, D], weight [V, D] of one dtype (f32, bf16, f16); tokens [N] i64 in [0, V); logprobs, entropy and
// their gradients [N] f32; statistics [N, 2] f32: the largest logit before division by the temperature, and
// sum_v exp(z_iv - z_i,max).
// Rows whose two incoming gradients are both 0 are left out of the backward pass: their gradient is 0.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct TokenLogprobRows {
  const int64_t* tokens;  // [count]
  float* logprobs;        // [count], written
  float* entropy;         // [count], written
  float* statistics;      // [count, 2], written
  int64_t count;
  int64_t vocabulary;
  float inverse_temperature;
};

struct TokenLogprobGradientRows {
  const int64_t* rows;      // [count]: where in the [N] arrays below each row of the chunk stands
  const int64_t* tokens;    // [N]
  const float* dlogprobs;   // [N]
  const float* dentropy;    // [N]
  const float* entropy;     // [N]
  const float* statistics;  // [N, 2]
  int64_t count;
  int64_t vocabulary;
  float inverse_temperature;
};

// logits [count, vocabulary] of T = float or bfloat16, before the temperature.
template <typename T>
void token_logprob_rows(const T* logits, const TokenLogprobRows& rows);

// Replaces the logits by the gradient with respect to them.
template <typename T>
void token_logprob_gradient_rows(T* logits, const TokenLogprobGradientRows& rows);

struct TokenLogprobChunk {
  const void* logits;      // [count, stride] on 16 bytes, `stride` whole vectors of 16 bytes; f32, bf16 or f16
  const int64_t* tokens;   // [count], in [0, vocabulary)
  float* logprobs;         // [count], written
  float* entropy;          // [count], written
  float* statistics;       // [count, 2], written
  int64_t count;
  int64_t vocabulary;
  int64_t stride;  // at least vocabulary
  float inverse_temperature;
  Element element;
};

struct TokenLogprobGradientChunk {
  void* logits;             // as above, replaced by gradient_scale times the gradient, and 0 beyond a row's end
  const int64_t* rows;      // [count]: where in the [N] arrays below each row of the chunk stands
  const int64_t* tokens;    // [N]
  const float* dlogprobs;   // [N]
  const float* dentropy;    // [N]
  const float* entropy;     // [N]
  const float* statistics;  // [N, 2]
  int64_t count;
  int64_t vocabulary;
  int64_t stride;
  float inverse_temperature;
  float gradient_scale;
  Element element;
};

// The same on a CUDA device. A token outside the vocabulary ends the launch with an error.
void token_logprob_rows_cuda(const TokenLogprobChunk& chunk, const DeviceContext& context);
void token_logprob_gradient_rows_cuda(const TokenLogprobGradientChunk& chunk, const DeviceContext& context);

}  // namespace igf
