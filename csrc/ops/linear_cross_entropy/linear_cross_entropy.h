// Output layer and cross-entropy in one: the sum of -log p(target) over counted tokens, without whole logits.
//
//   z_i = hidden_i @ weight.T                                   [V], only for i with loss_mask_i
//   loss = sum_i log(sum_v exp(z_iv)) - z_i,target_i
//   dloss/dz_iv = exp(z_iv) / sum_u exp(z_iu) - [v = target_i]
//   dloss/dhidden_i = dloss/dz_i @ weight,   dloss/dweight = sum_i outer(dloss/dz_i, hidden_i)
// Source: the maximum-likelihood objective of Radford et al. 2018 ("Improving Language Understanding by Generative
// Pre-Training"), eq. 1, with the softmax output layer of its eq. 2.
//
// Shapes: hidden [N, D], weight [V, D] of one dtype (f32, bf16, f16); targets [N] i64 in [0, V) where counted;
// loss_mask [N] bool, absent = all counted; loss [] f32; dhidden [N, D] and dweight [V, D] f32 (bf16 for bf16).
// Uncounted rows of hidden and targets are never read; their rows of dhidden are 0.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct CrossEntropyRows {
  const int64_t* targets;  // [count]
  double* losses;          // [count], written
  int64_t count;
  int64_t vocabulary;
  bool gradient;  // replace the logits by dloss/dz; else leave them
};

// logits [count, vocabulary] of T = float or bfloat16; statistics in f32.
template <typename T>
void cross_entropy_rows(T* logits, const CrossEntropyRows& rows);

struct CrossEntropyChunk {
  void* logits;            // [count, stride] on 16 bytes, `stride` whole vectors of 16 bytes; f32, bf16 or f16
  const int64_t* targets;  // [count], in [0, vocabulary)
  float* losses;           // [all]; those of this chunk, which begin at `first`, are written
  float* loss;             // [], the sum of all losses; null before the last chunk
  int64_t first;
  int64_t count;
  int64_t all;
  int64_t vocabulary;
  int64_t stride;  // at least vocabulary; what lies beyond a row's end becomes 0 with it
  float gradient_scale;  // logits become gradient_scale * dloss/dz; 0: they are left as they are
  Element element;
};

// The same on a CUDA device. A target outside the vocabulary ends the launch with an error.
void cross_entropy_rows_cuda(const CrossEntropyChunk& chunk, const DeviceContext& context);

}  // namespace igf
