// Generalised advantage estimation over masked sequences, backwards along each row.
//
//   A_t = delta_t + gamma lambda A_t',  delta_t = r_t + gamma V_t' - V_t,  t' = the next counted token of the row
//   returns_t = A_t + V_t;  V_t' = A_t' = 0 after the last counted token;  all results 0 where uncounted
// Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16, as a recursion.
//
// The rewards are given, or shaped here from what the policy and its reference say of the tokens:
//   kl_t = logprob_t - ref_logprob_t,  r_t = -kl_coef kl_t, plus the row's score on its last counted token
// Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 2. A row without a counted token has no place for its score.
//
// Shapes: [rows, columns] f32, but scores [rows] and mask bool, true = counts.
// Numbers: f32 throughout. What stands at an uncounted place is never read into a result. A row's result does not
// depend on the other rows. Memory: 9 bytes read and 8 written a token; shaped, 13 and 16.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct GaeArguments {
  const float* rewards;       // null: shaped from the next three ...
  const float* logprobs;      // ... which are null otherwise
  const float* ref_logprobs;
  const float* scores;
  const float* values;
  const uint8_t* mask;  // torch.bool: 1 = counts
  float* kl;            // null with given rewards, like the next
  float* shaped;        // the rewards that were shaped
  float* advantages;
  float* returns;
  int64_t rows;
  int64_t columns;
  float gamma;
  float decay;  // gamma lambda, rounded once: A hangs on its powers
  float kl_coef;
  bool vectors;  // CUDA alone: rows are whole groups of four tokens, pointers stand on 16 bytes, the mask on 4
};

void gae_forward(const GaeArguments& arguments);
void gae_forward_cuda(const GaeArguments& arguments, const DeviceContext& context);

}  // namespace igf
