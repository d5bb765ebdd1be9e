// A linear layer whose rows do not depend on their neighbours: what generation needs to give a request the same answer
// to the bit whatever else is served beside it.
//
//   y[m, n] = sum_k x[m, k] weight[n, k] + bias[n]
//
// Shapes: x [rows, inputs], weight [outputs, inputs] (torch.nn.Linear's layout, read in place), bias [outputs] or none,
// y [rows, outputs]; all dense in row-major order.
// Numbers: x, weight and bias share one dtype (f32, bf16, f16); y has it too, or is f32. Products and sums in f32, the
// bias is added last, and the result is rounded once, to y's dtype.
// Order: the terms of a sum are added in an order that `inputs` alone decides: y[m, n] has the same bits for every
// number of rows, every place among them, every other row, every number of outputs and of threads. On one machine: CPU
// levels differ in contraction (cpu/clones.h), a GPU adds in an order of its own.
// With inputs = 0 the sum is 0.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct InvariantLinear {
  const void* x;       // [rows, inputs]
  const void* weight;  // [outputs, inputs]
  const void* bias;    // [outputs], or null
  void* y;             // [rows, outputs]
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
  Element element;    // of x, weight, bias
  Element y_element;  // `element` or kFloat
};

// On the CPU.
void invariant_linear(const InvariantLinear& arguments);

// For any number of rows. Where 16-bit inputs are whole vectors of 16 bytes, x and weight stand on 16 bytes; all other
// pointers may stand on any multiple of their element's size.
void invariant_linear_cuda(const InvariantLinear& arguments, const DeviceContext& context);

}  // namespace igf
