// Layer normalisation over the last dimension, with an optional residual added first.
//
//   s = x + residual                       (rounded to x's dtype; s = x when there is no residual)
//   y = (s - mean(s)) * rstd(s) * weight + bias,   rstd = 1 / sqrt(var(s) + eps), var biased
// Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4.
//
// Shapes: x, residual, y, s [rows, width]; weight, bias [width]; mean, rstd [rows] f32.
// Numbers: x, residual, y, s share one dtype (f32, bf16, f16); weight and bias share x's dtype or are f32; statistics
// and all sums in f32.
#pragma once

#include <cstdint>

namespace igf {

struct LayerNormShape {
  int64_t rows;
  int64_t width;
};

}  // namespace igf
