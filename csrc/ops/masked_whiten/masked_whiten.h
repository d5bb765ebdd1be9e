// Whitening over the counted elements.
//
//   y = (x - mean) / sqrt(var + eps) [+ mean when the mean is kept],  mean and biased var over the counted elements
//   y = 0 where uncounted; with nothing counted, or equal elements, var is 0
// Source: Ziegler et al. 2019, arXiv:1909.08593, released code (`whiten`).
//
// Shapes: x, y [count] f32; mask [count] bool, true = counts.
// Numbers: moments in double, so that a mean far from 0 costs no digits; merged over blocks of a fixed size in order
// (Chan, Golub, LeVeque 1983), so the bits do not depend on the number of threads. What stands at an uncounted place is
// never read into a result. Memory: 9 bytes an element, 14 where the second pass must read again.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct MaskedWhitenArguments {
  const float* x;
  const uint8_t* mask;  // torch.bool: 1 = counts
  float* y;
  int64_t count;
  bool shift_mean;
  double eps;
  // CUDA alone:
  double* moments;   // [3, masked_whiten_tiles(count)]
  float* scale;      // [4]
  int32_t* earlier;  // [masked_whiten_tiles(count)]: of a span read again, 1 + the one to read after it, or 0
  bool aligned;      // x stands on 16 bytes, the mask on 4
};

void masked_whiten_forward(const MaskedWhitenArguments& arguments);
void masked_whiten_forward_cuda(const MaskedWhitenArguments& arguments, const DeviceContext& context);

// How many tiles the CUDA kernel cuts the elements into.
int64_t masked_whiten_tiles(int64_t count);

}  // namespace igf
