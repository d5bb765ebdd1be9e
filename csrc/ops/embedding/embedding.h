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
// Limits: every id must lie in its table; the op checks before it reads.
#pragma once

#include <cstdint>

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

}  // namespace igf
