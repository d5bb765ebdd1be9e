// Matrix products, softmax and dropout on tiles of f32, and rows in and out of them.
//
// The product keeps a small block of c in registers while it runs over the depth: each step loads kVecs vectors of b
// and broadcasts kRows numbers of a. How large the block may be depends on the number and width of the registers, so
// there is one product for each CPU level, chosen once; everything else is a loop that the compiler vectorises.
#include "ops/attention/attention_tiles.h"

#include <cmath>

#include "cpu/clones.h"
#include "device/math.h"
#include "device/philox.h"

namespace igf::tiles {
namespace {

typedef float Vector __attribute__((vector_size(kVector * sizeof(float)), aligned(4), may_alias));

template <int kRows, int kVecs>
IGF_INLINE void block(const Product& p, int64_t m, int64_t n) {
  const int64_t a_row = p.a_row, a_depth = p.a_depth, b_row = p.b_row, c_row = p.c_row, depth = p.depth;
  const bool add = p.add;
  const float* a = p.a + m * a_row;
  const float* b = p.b + n;
  float* c = p.c + m * c_row + n;
  Vector sums[kRows][kVecs] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Vector row[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) row[v] = *reinterpret_cast<const Vector*>(b + k * b_row + v * kVector);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float factor = a[r * a_row + k * a_depth];
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sums[r][v] += factor * row[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) {
      Vector* out = reinterpret_cast<Vector*>(c + r * c_row + v * kVector);
      // Added last, not summed onto: a sum in two levels loses less than one long chain.
      *out = add ? *out + sums[r][v] : sums[r][v];
    }
  }
}

// Rows [m, rows) in blocks of kRows, then of 4, 2 and 1.
template <int kRows, int kVecs>
IGF_INLINE void column_panel(const Product& p, int64_t n) {
  int64_t m = 0;
  for (; m + kRows <= p.rows; m += kRows) block<kRows, kVecs>(p, m, n);
  if constexpr (kRows > 4) {
    for (; m + 4 <= p.rows; m += 4) block<4, kVecs>(p, m, n);
  }
  for (; m + 2 <= p.rows; m += 2) block<2, kVecs>(p, m, n);
  for (; m < p.rows; ++m) block<1, kVecs>(p, m, n);
}

template <int kRows, int kVecs>
IGF_INLINE void product_body(const Product& p) {
  int64_t n = 0;
  for (; n + kVecs * kVector <= p.columns; n += kVecs * kVector) column_panel<kRows, kVecs>(p, n);
  for (; n < p.columns; n += kVector) column_panel<kRows, 1>(p, n);
}

// Registers: 16 of 16 bytes; 16 of 32 bytes; 32 of 64 bytes. A Vector takes four, two, one of them.
void product_default(const Product& p) { product_body<2, 1>(p); }

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(IGF_NO_CLONES)
__attribute__((target("arch=x86-64-v3"))) void product_v3(const Product& p) { product_body<5, 1>(p); }
__attribute__((target("arch=x86-64-v4"))) void product_v4(const Product& p) { product_body<8, 2>(p); }

using ProductFunction = void (*)(const Product&);
ProductFunction choose_product() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return product_v4;
  if (__builtin_cpu_supports("x86-64-v3")) return product_v3;
  return product_default;
}
const ProductFunction product_best = choose_product();
#else
void product_best(const Product& p) { product_default(p); }
#endif

constexpr float kMinusInfinity = -__builtin_huge_valf();


template <typename T>
IGF_INLINE void read_body(const T* from, float* to, int64_t width, float factor) {
  for (int64_t d = 0; d < width; ++d) to[d] = float(from[d]) * factor;
}
template <typename T>
IGF_INLINE void write_body(const float* from, T* to, int64_t width, float factor) {
  for (int64_t d = 0; d < width; ++d) to[d] = T(from[d] * factor);
}
template <typename T>
IGF_INLINE float dot_body(const T* a, const T* b, int64_t width) {
  float lanes[kVector] = {};
  int64_t d = 0;
  for (; d + kVector <= width; d += kVector) {
    for (int64_t l = 0; l < kVector; ++l) lanes[l] += float(a[d + l]) * float(b[d + l]);
  }
  for (; d < width; ++d) lanes[0] += float(a[d]) * float(b[d]);
  float sum = 0.0f;
  for (int64_t l = 0; l < kVector; ++l) sum += lanes[l];
  return sum;
}

}  // namespace

void multiply(const Product& product) { product_best(product); }

IGF_CLONES void transpose(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows,
                          int64_t columns) {
  constexpr int64_t kSide = 16;
  for (int64_t j = 0; j < rows; j += kSide) {
    const int64_t count = rows - j < kSide ? rows - j : kSide;
    for (int64_t d = 0; d < columns; ++d) {
      for (int64_t i = 0; i < count; ++i) to[d * to_row + j + i] = from[(j + i) * from_row + d];
    }
  }
}

IGF_CLONES float softmax_row(float* scores, int64_t columns, Visible visible, float* maximum, float* sum) {
  for (int64_t j = 0; j < visible.begin; ++j) scores[j] = kMinusInfinity;
  for (int64_t j = visible.end; j < columns; ++j) scores[j] = kMinusInfinity;
  float tops[kVector], sums[kVector];
  for (int64_t l = 0; l < kVector; ++l) tops[l] = *maximum;
  for (int64_t j = 0; j < columns; j += kVector) {
    for (int64_t l = 0; l < kVector; ++l) tops[l] = scores[j + l] > tops[l] ? scores[j + l] : tops[l];
  }
  float top = tops[0];
  for (int64_t l = 1; l < kVector; ++l) top = tops[l] > top ? tops[l] : top;
  // Nothing visible so far: any finite subtrahend gives exp(-infinity) = 0.
  const float shift = top == kMinusInfinity ? 0.0f : top;
  for (int64_t l = 0; l < kVector; ++l) sums[l] = 0.0f;
  for (int64_t j = 0; j < columns; j += kVector) {
    for (int64_t l = 0; l < kVector; ++l) {
      const float e = math::exp(scores[j + l] - shift);
      scores[j + l] = e;
      sums[l] += e;
    }
  }
  float total = 0.0f;
  for (int64_t l = 0; l < kVector; ++l) total += sums[l];
  const float before = *maximum == top ? 1.0f : math::exp(*maximum - shift);
  *sum = *sum * before + total;
  *maximum = top;
  return before;
}

IGF_CLONES void probabilities_row(float* scores, int64_t columns, Visible visible, float lse) {
  for (int64_t j = 0; j < columns; ++j) scores[j] = math::exp(scores[j] - lse);
  for (int64_t j = 0; j < visible.begin; ++j) scores[j] = 0.0f;
  for (int64_t j = visible.end; j < columns; ++j) scores[j] = 0.0f;
}

IGF_CLONES void dscores_row(const float* __restrict probabilities, float* __restrict dprobabilities, int64_t columns,
                            Visible visible, float delta) {
  for (int64_t j = 0; j < columns; ++j) dprobabilities[j] = probabilities[j] * (dprobabilities[j] - delta);
  for (int64_t j = 0; j < visible.begin; ++j) dprobabilities[j] = 0.0f;
  for (int64_t j = visible.end; j < columns; ++j) dprobabilities[j] = 0.0f;
}

IGF_CLONES void dropout_row(const Dropout& dropout, int64_t row, int64_t head, int64_t first_key, float* keep,
                            int64_t columns) {
  const philox::Key key = philox::key_of(dropout.seed);
  const uint32_t threshold = dropout.threshold;
  const float factor = dropout.factor;
  for (int64_t j = 0; j < columns; j += kDropoutKeys) {
    const uint32_t first = static_cast<uint32_t>((first_key + j) / kDropoutKeys * kVector);
    for (int64_t l = 0; l < kVector; ++l) {
      const philox::Block drawn = philox::draw({first + static_cast<uint32_t>(l), static_cast<uint32_t>(row),
                                                static_cast<uint32_t>(head), philox::kDropout}, key);
      keep[j + l] = drawn.w0 >= threshold ? factor : 0.0f;
      keep[j + kVector + l] = drawn.w1 >= threshold ? factor : 0.0f;
      keep[j + 2 * kVector + l] = drawn.w2 >= threshold ? factor : 0.0f;
      keep[j + 3 * kVector + l] = drawn.w3 >= threshold ? factor : 0.0f;
    }
  }
}

IGF_CLONES void scale_row(float* row, int64_t columns, float factor) {
  for (int64_t j = 0; j < columns; ++j) row[j] *= factor;
}

IGF_CLONES void multiply_row(float* __restrict row, const float* __restrict by, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) row[j] *= by[j];
}

IGF_CLONES void add_scaled_row(float* __restrict row, const float* __restrict other, int64_t columns, float factor) {
  for (int64_t j = 0; j < columns; ++j) row[j] += factor * other[j];
}

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_ATTENTION_ROWS(T)                                                                            \
  IGF_CLONES void read_row(const T* __restrict from, float* __restrict to, int64_t width, float factor) { \
    read_body(from, to, width, factor);                                                                  \
  }                                                                                                      \
  IGF_CLONES void write_row(const float* __restrict from, T* __restrict to, int64_t width, float factor) { \
    write_body(from, to, width, factor);                                                                 \
  }                                                                                                      \
  IGF_CLONES float dot_row(const T* a, const T* b, int64_t width) { return dot_body(a, b, width); }
IGF_ATTENTION_ROWS(float)
IGF_ATTENTION_ROWS(bfloat16)
IGF_ATTENTION_ROWS(half)
#undef IGF_ATTENTION_ROWS

}  // namespace igf::tiles
