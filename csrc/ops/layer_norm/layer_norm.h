// Layer normalisation over the last dimension, with an optional residual added first.
//
//   s = x + residual                       (rounded to x's dtype; s = x when there is no residual)
//   y = (s - mean(s)) * rstd(s) * weight + bias,   rstd = 1 / sqrt(var(s) + eps), var biased
// Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4.
// Gradient, with n = (s - mean) * rstd and g = dy * weight, sums over a row, D its width:
//   ds = rstd * (g - (sum(g) + n * sum(g * n)) / D) + dsummed,   dweight = sum over rows of dy * n,   dbias = of dy
//
// Numbers: x, residual, y, s, dy, dsummed, dx share one element type; weight, bias and their gradients share it or are
// f32; statistics and all sums in f32. Dense tensors. A fixed order of additions: equal inputs give equal bits on one
// device.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct LayerNormForward {
  const void* x;         // [rows, width]
  const void* residual;  // [rows, width], or null
  const void* weight;    // [width]
  const void* bias;      // [width]
  void* y;               // [rows, width]
  void* summed;          // [rows, width], null when residual is
  float* mean;           // [rows]
  float* rstd;           // [rows]
  int64_t rows;
  int64_t width;
  float eps;
  Element element;         // of x, residual, y, summed
  Element weight_element;  // of weight, bias
  bool aligned;            // every pointer stands on 16 bytes
};

struct LayerNormBackward {
  const void* dy;       // [rows, width]
  const void* dsummed;  // [rows, width], or null
  const void* summed;   // [rows, width]: x, or x + residual
  const void* weight;   // [width]
  const float* mean;    // [rows]
  const float* rstd;    // [rows]
  void* dx;             // [rows, width]
  void* dweight;        // [width]
  void* dbias;          // [width]
  float* partials;      // [2, layer_norm_partial_rows, width]: sums of dy * n, then of dy, one row a block
  int64_t rows;
  int64_t width;
  Element element;         // of dy, dsummed, summed, dx
  Element weight_element;  // of weight, dweight, dbias
  bool aligned;            // every pointer stands on 16 bytes
};

// On the CPU, where any alignment will do. eps stands for the one in `arguments`, which has lost half its digits.
void layer_norm_forward_cpu(const LayerNormForward& arguments, double eps);

void layer_norm_forward_cuda(const LayerNormForward& arguments, const DeviceContext& context);
void layer_norm_backward_cuda(const LayerNormBackward& arguments, const DeviceContext& context);

// How many rows `partials` must have for these arguments (its own pointer is not read).
int64_t layer_norm_partial_rows(const LayerNormBackward& arguments, const DeviceContext& context);

}  // namespace igf
