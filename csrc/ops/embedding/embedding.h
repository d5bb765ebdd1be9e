// Sum of a token's and a position's embedding, and its gradient.
//
//   y[n] = token_weight[tokens[n]] + position_weight[position_ids[n]]
//   dtoken_weight[v] = sum of dy[n] over the n with tokens[n] = v, in the order of n; dposition_weight likewise
// Source: Radford et al. 2018, "Improving language understanding by generative pre-training", eq. 2 (h_0).
//
// Shapes: tokens, position_ids [count] int64; token_weight [vocab, width]; position_weight [positions, width];
// y, dy [count, width].
// Numbers: weights, y and dy share one dtype (f32, bf16, f16); the addition and the gradient's sums are in f32, rounded
// once. The order of a sum is fixed by n alone: equal bits for any number of threads.
// Limits: every id must lie in its table. The CPU op checks before it reads and names the id. On a GPU the values are
// only known to the kernel, and asking for them would stop the host at every call: there an id outside its table makes
// the row of y NaN, which no loss survives unseen, and such a row of dy counts nowhere in that table's gradient.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

struct EmbeddingShape {
  int64_t count;
  int64_t width;
};

// The first index whose id lies outside [0, limit), or -1.
int64_t find_id_outside(const int64_t* ids, int64_t count, int64_t limit);

template <typename T>
void embedding_forward(const int64_t* tokens, const int64_t* position_ids, const T* token_weight,
                       const T* position_weight, T* y, EmbeddingShape shape);

// Writes every row of dweight [rows, width]: sums where ids name the row, zeros elsewhere. Scratch: order [count] and
// starts [rows + 1], int64.
template <typename T>
void embedding_backward(const int64_t* ids, const T* dy, T* dweight, int64_t rows, EmbeddingShape shape,
                        int64_t* order, int64_t* starts);

struct EmbeddingForward {
  const int64_t* tokens;        // [count]
  const int64_t* position_ids;  // [count]
  const void* token_weight;     // [vocab, width]
  const void* position_weight;  // [positions, width]
  void* y;                      // [count, width]
  int64_t count;
  int64_t width;
  int64_t vocab;
  int64_t positions;
  Element element;  // of the weights and y
  bool aligned;     // weights and y stand on 16 bytes
};

// The gradient of one table. `ids` are sorted, `order` says where each stood before, equal ids in ascending order.
struct EmbeddingBackward {
  const int64_t* ids;    // [count], sorted
  const int64_t* order;  // [count]
  const void* dy;        // [count, width]
  void* dweight;         // [rows, width], zeros where no id names the row
  float* partials;       // [embedding_partial_rows(count), width]
  int64_t count;
  int64_t width;
  int64_t rows;
  Element element;  // of dy, dweight
  bool aligned;     // dy and dweight stand on 16 bytes
};

void embedding_forward_cuda(const EmbeddingForward& arguments, const DeviceContext& context);
void embedding_backward_cuda(const EmbeddingBackward& arguments, const DeviceContext& context);

// How many rows `partials` must have.
int64_t embedding_partial_rows(int64_t count);

}  // namespace igf
