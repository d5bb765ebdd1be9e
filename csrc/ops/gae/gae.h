// Generalised advantage estimation over masked sequences, backwards along each row.
//
//   A_t = delta_t + gamma lambda A_t',  delta_t = r_t + gamma V_t' - V_t,  t' = the next counted token of the row
//   returns_t = A_t + V_t;  V_t' = A_t' = 0 after the last counted token;  both results 0 where uncounted
// Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16, as a recursion.
//
// Shapes: rewards, values, advantages, returns [rows, columns] f32; mask [rows, columns] bool, true = counts.
// Numbers: f32 throughout. What stands at an uncounted place is never read into a result. A row's result does not
// depend on the other rows. Memory: 9 bytes read and 8 written a token.
#pragma once

#include <cstdint>

namespace igf {

struct GaeArguments {
  const float* rewards;
  const float* values;
  const uint8_t* mask;  // torch.bool: 1 = counts
  float* advantages;
  float* returns;
  int64_t rows;
  int64_t columns;
  float gamma;
  float lambda;
};

void gae_forward(const GaeArguments& arguments);

}  // namespace igf
