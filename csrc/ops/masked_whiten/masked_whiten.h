// Whitening over the counted elements.
//
//   y = (x - mean) / sqrt(var + eps) [+ mean when the mean is kept],  mean and biased var over the counted elements
//   y = 0 where uncounted; with nothing counted, or equal elements, var is 0
// Source: Ziegler et al. 2019, arXiv:1909.08593, released code (`whiten`).
//
// Shapes: x, y [count] f32; mask [count] bool, true = counts.
// Numbers: moments in double, so that a mean far from 0 costs no digits; merged over blocks of a fixed size in order
// (Chan, Golub, LeVeque 1983), so the bits do not depend on the number of threads. What stands at an uncounted place is
// never read into a result. Memory: 2 passes, 10 bytes read and 4 written an element.
#pragma once

#include <cstdint>

namespace igf {

struct MaskedWhitenArguments {
  const float* x;
  const uint8_t* mask;  // torch.bool: 1 = counts
  float* y;
  int64_t count;
  bool shift_mean;
  double eps;
};

void masked_whiten_forward(const MaskedWhitenArguments& arguments);

}  // namespace igf
