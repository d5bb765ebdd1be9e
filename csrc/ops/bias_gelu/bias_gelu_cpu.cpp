// bias_gelu on the CPU: one row at a time, the row's columns vectorised, blocks of rows over the threads.
#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "ops/bias_gelu/gelu_gate.h"

namespace igf {
namespace {

template <GeluKind kKind, typename T>
IGF_INLINE void forward_row(const T* x, const float* bias, T* y, int64_t width) {
  for (int64_t d = 0; d < width; ++d) y[d] = T(gelu<kKind, Accurate>(float(x[d]) + bias[d]));
}

// sums[d] += dx[d], before dx is rounded to T.
template <GeluKind kKind, typename T>
IGF_INLINE void backward_row(const T* dy, const T* x, const float* bias, T* dx, float* __restrict sums, int64_t width) {
  for (int64_t d = 0; d < width; ++d) {
    const float gradient = float(dy[d]) * slope<kKind, Accurate>(float(x[d]) + bias[d]);
    dx[d] = T(gradient);
    sums[d] += gradient;
  }
}

// One plain function a dtype, direction and kind, because IGF_CLONES takes no template.
#define IGF_GELU_ROWS(T)                                                                                             \
  IGF_CLONES void forward_tanh(const T* __restrict x, const float* __restrict bias, T* __restrict y, int64_t width) { \
    forward_row<GeluKind::kTanh>(x, bias, y, width);                                                                 \
  }                                                                                                                  \
  IGF_CLONES void forward_exact(const T* __restrict x, const float* __restrict bias, T* __restrict y, int64_t width) { \
    forward_row<GeluKind::kExact>(x, bias, y, width);                                                                \
  }                                                                                                                  \
  IGF_CLONES void backward_tanh(const T* __restrict dy, const T* __restrict x, const float* __restrict bias,         \
                                T* __restrict dx, float* __restrict sums, int64_t width) {                           \
    backward_row<GeluKind::kTanh>(dy, x, bias, dx, sums, width);                                                     \
  }                                                                                                                  \
  IGF_CLONES void backward_exact(const T* __restrict dy, const T* __restrict x, const float* __restrict bias,        \
                                 T* __restrict dx, float* __restrict sums, int64_t width) {                          \
    backward_row<GeluKind::kExact>(dy, x, bias, dx, sums, width);                                                    \
  }

IGF_GELU_ROWS(float)
IGF_GELU_ROWS(bfloat16)
IGF_GELU_ROWS(half)
#undef IGF_GELU_ROWS

IGF_CLONES void add_row(float* __restrict sum, const float* __restrict row, int64_t begin, int64_t end) {
  for (int64_t d = begin; d < end; ++d) sum[d] += row[d];
}

// Elements worth a thread's start.
constexpr int64_t kGrainElements = 16384;

}  // namespace

template <typename T>
void bias_gelu_forward(const T* x, const float* bias, T* y, BiasGeluShape shape, GeluKind kind) {
  const int64_t width = shape.width;
  parallel_for(0, shape.rows, kGrainElements / (width + 1), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (kind == GeluKind::kTanh) {
        forward_tanh(x + row * width, bias, y + row * width, width);
      } else {
        forward_exact(x + row * width, bias, y + row * width, width);
      }
    }
  });
}

template <typename T>
void bias_gelu_backward(const T* dy, const T* x, const float* bias, T* dx, float* partials, float* dbias,
                        BiasGeluShape shape, GeluKind kind) {
  const int64_t width = shape.width, rows = shape.rows;
  const int64_t block_rows = bias_gelu_rows_per_block(rows), blocks = (rows + block_rows - 1) / block_rows;
  parallel_for(0, blocks, kGrainElements / (block_rows * width + 1), [=](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      float* sums = partials + block * width;
      for (int64_t d = 0; d < width; ++d) sums[d] = 0.0f;
      const int64_t end = (block + 1) * block_rows < rows ? (block + 1) * block_rows : rows;
      for (int64_t row = block * block_rows; row < end; ++row) {
        const int64_t at = row * width;
        if (kind == GeluKind::kTanh) {
          backward_tanh(dy + at, x + at, bias, dx + at, sums, width);
        } else {
          backward_exact(dy + at, x + at, bias, dx + at, sums, width);
        }
      }
    }
  });
  parallel_for(0, width, kGrainElements * 8 / (blocks + 1), [=](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) dbias[d] = 0.0f;
    for (int64_t block = 0; block < blocks; ++block) add_row(dbias, partials + block * width, begin, end);
  });
}

#define IGF_INSTANTIATE(T)                                                                       \
  template void bias_gelu_forward<T>(const T*, const float*, T*, BiasGeluShape, GeluKind);       \
  template void bias_gelu_backward<T>(const T*, const T*, const float*, T*, float*, float*, BiasGeluShape, GeluKind);
IGF_INSTANTIATE(float)
IGF_INSTANTIATE(bfloat16)
IGF_INSTANTIATE(half)
#undef IGF_INSTANTIATE

}  // namespace igf
