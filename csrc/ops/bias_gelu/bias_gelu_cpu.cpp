// bias_gelu on the CPU: one row at a time, the row's columns vectorised, blocks of rows over the threads.
#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "device/math.h"
#include "ops/bias_gelu/bias_gelu.h"

namespace igf {
namespace {

constexpr float kSqrt2OverPi = 0.797884561f;
constexpr float kCubic = 0.044715f;
constexpr float kSqrtHalf = 0.707106781f;
constexpr float kInvSqrt2Pi = 0.398942280f;
// Beyond this |v| the gate of either form is 0 or 1 to the last bit; clamping keeps infinity times zero out of it.
constexpr float kFlat = 16.0f;

// gelu(v) = v gate(v), and gate(-v) = 1 - gate(v). Everything is computed from the lower gate, gate(-|v|) <= 1/2: near
// 1 the gate would lose in its last bit what 1 - lower keeps.
struct Gate {
  float lower;   // gate(-|v|)
  float change;  // gate'(v)
};

// gate = sigmoid(2 u), u of the tanh form; magnitude = min(|v|, kFlat).
IGF_INLINE Gate gate_tanh(float magnitude) {
  const float square = magnitude * magnitude;
  const float decay = math::exp(magnitude * (-2.0f * kSqrt2OverPi - (2.0f * kSqrt2OverPi * kCubic) * square));
  const float upper = 1.0f / (1.0f + decay), lower = decay * upper;
  return {lower, lower * upper * (2.0f * kSqrt2OverPi + (6.0f * kSqrt2OverPi * kCubic) * square)};
}

// gate = Phi; Phi(-m) = exp(-a^2) erfcx(a) / 2 with a = m / sqrt(2). erfcx is a polynomial in
// t = 1 / (1 + 0.4 a) - 1/2, fitted for least relative error on a in [0, 9.5] (2.7e-8); beyond, exp(-a^2) is below the
// smallest float.
IGF_INLINE Gate gate_exact(float magnitude) {
  const float a = magnitude * kSqrtHalf;
  const float t = 1.0f / (1.0f + 0.4f * a) - 0.5f;
  float p = 0x1.b973eep-6f;
  p = p * t + 0x1.c9c414p-5f;
  p = p * t - 0x1.ab99ecp-4f;
  p = p * t - 0x1.5ac070p-3f;
  p = p * t + 0x1.0483aep-3f;
  p = p * t + 0x1.470dc4p-1f;
  p = p * t + 0x1.001286p+0f;
  p = p * t + 0x1.01c118p+0f;
  p = p * t + 0x1.7ca888p-1f;
  p = p * t + 0x1.afbb40p-3f;
  const float density = math::exp(-a * a);
  return {0.5f * density * p, kInvSqrt2Pi * density};
}

template <GeluKind kKind>
IGF_INLINE Gate gate_of(float magnitude) {
  if constexpr (kKind == GeluKind::kTanh) {
    return gate_tanh(magnitude);
  } else {
    return gate_exact(magnitude);
  }
}

IGF_INLINE float flat_magnitude(float v) {
  const float magnitude = v < 0.0f ? -v : v;
  return magnitude > kFlat ? kFlat : magnitude;
}

template <GeluKind kKind>
IGF_INLINE float gelu(float v) {
  const float magnitude = flat_magnitude(v);
  const float lost = magnitude * gate_of<kKind>(magnitude).lower;
  return v > 0.0f ? v - lost : -lost;
}

template <GeluKind kKind>
IGF_INLINE float slope(float v) {
  const float magnitude = flat_magnitude(v);
  const Gate gate = gate_of<kKind>(magnitude);
  const float bent = magnitude * gate.change;
  return v > 0.0f ? 1.0f - (gate.lower - bent) : gate.lower - bent;
}

template <GeluKind kKind, typename T>
IGF_INLINE void forward_row(const T* x, const float* bias, T* y, int64_t width) {
  for (int64_t d = 0; d < width; ++d) y[d] = T(gelu<kKind>(float(x[d]) + bias[d]));
}

// sums[d] += dx[d], before dx is rounded to T.
template <GeluKind kKind, typename T>
IGF_INLINE void backward_row(const T* dy, const T* x, const float* bias, T* dx, float* __restrict sums, int64_t width) {
  for (int64_t d = 0; d < width; ++d) {
    const float gradient = float(dy[d]) * slope<kKind>(float(x[d]) + bias[d]);
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
