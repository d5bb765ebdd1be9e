// The f32 work on one tile of queries and one block of keys, compiled for each CPU level.
#pragma once

#include <cstdint>

#include "cpu/scalar.h"

namespace igf::tiles {

// Columns come in whole vectors of this many floats; buffers are padded to it.
inline constexpr int64_t kVector = 16;

inline int64_t padded(int64_t columns) { return (columns + kVector - 1) / kVector * kVector; }

// c[m * c_row + n] (+)= sum over k of a[m * a_row + k * a_depth] * b[k * b_row + n].
struct Product {
  int64_t rows, columns, depth;  // columns: a multiple of kVector
  const float* a;
  int64_t a_row, a_depth;
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool add;  // false: what c held before is not read
};
void multiply(const Product& product);

// to[d * to_row + j] = from[j * from_row + d] for j < rows, d < columns.
void transpose(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows, int64_t columns);

// Columns [begin, end) of a row that its query sees; the rest of [0, columns) is masked.
struct Visible {
  int64_t begin, end;
};

// Folds one row of scores into the running maximum and sum, and turns it into exp(score - maximum), 0 where masked.
// Returns the factor by which what was accumulated before must be multiplied.
float softmax_row(float* scores, int64_t columns, Visible visible, float* maximum, float* sum);

// scores[j] becomes exp(scores[j] - lse), 0 where masked.
void probabilities_row(float* scores, int64_t columns, Visible visible, float lse);

// dprobabilities[j] becomes probabilities[j] * (dprobabilities[j] - delta), 0 where masked.
void dscores_row(const float* probabilities, float* dprobabilities, int64_t columns, Visible visible, float delta);

struct Dropout {
  int64_t seed;
  uint32_t threshold;  // words below it drop their element
  float factor;        // 1 / (1 - p)
};
// Keys whose words come from one vector of counters.
inline constexpr int64_t kDropoutKeys = 4 * kVector;
// keep[j] = factor or 0 for key first_key + j of this query row and head; first_key and columns are multiples of
// kDropoutKeys.
void dropout_row(const Dropout& dropout, int64_t row, int64_t head, int64_t first_key, float* keep, int64_t columns);

void scale_row(float* row, int64_t columns, float factor);                         // row *= factor
void multiply_row(float* row, const float* by, int64_t columns);                   // row *= by
void add_scaled_row(float* row, const float* other, int64_t columns, float factor);  // row += factor * other

// For each storage type: to = factor * from in f32, to = factor * from rounded, the dot product in f32.
#define IGF_ATTENTION_ROWS(T)                                             \
  void read_row(const T* from, float* to, int64_t width, float factor);  \
  void write_row(const float* from, T* to, int64_t width, float factor); \
  float dot_row(const T* a, const T* b, int64_t width);
IGF_ATTENTION_ROWS(float)
IGF_ATTENTION_ROWS(bfloat16)
IGF_ATTENTION_ROWS(half)
#undef IGF_ATTENTION_ROWS

}  // namespace igf::tiles
