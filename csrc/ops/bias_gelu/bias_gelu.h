// Bias and Gaussian error linear unit in one pass over memory, and its gradient.
//
//   y = gelu(v), v = x + bias
//   exact:  gelu(v) = v Phi(v) = v / 2 * erfc(-v / sqrt(2))
//   tanh:   gelu(v) = v / 2 * (1 + tanh(u)) = v * sigmoid(2 u),   u = sqrt(2 / pi) * (v + 0.044715 v^3)
// Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2 (both forms). GPT-2 and GPT-3 use the tanh form.
//
// Shapes: x, dy, y, dx [rows, width]; bias, dbias [width].
// Numbers: x, dy, y, dx share one dtype (f32, bf16, f16); bias has x's dtype or is f32; v is kept in f32, never rounded
// to x's dtype. Only x is kept for the gradient: v is a sum away, so no second tensor of x's size is stored.
// dbias sums rows in f32, on the CPU in an order that depends on `rows` alone (equal bits for any number of threads),
// on a GPU in one that depends on its number of multiprocessors besides.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct BiasGeluShape {
  int64_t rows;
  int64_t width;
};

enum class GeluKind { kExact, kTanh };

// Rows are summed in at most this many blocks, whose sums are then added in order.
inline constexpr int64_t kBiasGeluBlocks = 64;

inline int64_t bias_gelu_rows_per_block(int64_t rows) {
  const int64_t least = 16;
  const int64_t even = (rows + kBiasGeluBlocks - 1) / kBiasGeluBlocks;
  return even < least ? least : even;
}

template <typename T>
void bias_gelu_forward(const T* x, const float* bias, T* y, BiasGeluShape shape, GeluKind kind);

// partials: scratch of [blocks, width] f32 with blocks = ceil(rows / bias_gelu_rows_per_block(rows)).
template <typename T>
void bias_gelu_backward(const T* dy, const T* x, const float* bias, T* dx, float* partials, float* dbias,
                        BiasGeluShape shape, GeluKind kind);

struct BiasGeluForward {
  const void* x;     // [rows, width]
  const void* bias;  // [width]
  void* y;           // [rows, width]
  int64_t rows;
  int64_t width;
  GeluKind kind;
  Element element;       // of x, y
  Element bias_element;  // of bias
  bool aligned;          // x and y stand on 16 bytes
};

struct BiasGeluBackward {
  const void* dy;    // [rows, width]
  const void* x;     // [rows, width]
  const void* bias;  // [width]
  void* dx;          // [rows, width]
  void* dbias;       // [width]
  float* partials;   // [bias_gelu_partial_rows, width]: each group of blocks' sums of dx
  int64_t rows;
  int64_t width;
  GeluKind kind;
  Element element;       // of dy, x, dx
  Element bias_element;  // of bias, dbias
  bool aligned;          // dy, x and dx stand on 16 bytes
};

void bias_gelu_forward_cuda(const BiasGeluForward& arguments, const DeviceContext& context);
void bias_gelu_backward_cuda(const BiasGeluBackward& arguments, const DeviceContext& context);

// How many rows `partials` must have for these arguments (its own pointer is not read).
int64_t bias_gelu_partial_rows(const BiasGeluBackward& arguments, const DeviceContext& context);

}  // namespace igf
