// layer_norm forward on the CPU: a row is added, summed and normalised while it lies in the first-level cache, and
// blocks of rows are shared out over the threads. A row's bits depend on the row alone.
#include <cmath>

#include "cpu/clones.h"
#include "cpu/lane_sum.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "ops/layer_norm/layer_norm.h"

namespace igf {
namespace {

// Elements worth a thread's start.
constexpr int64_t kGrainElements = 16384;

template <typename T>
IGF_INLINE void add_body(const T* x, const T* residual, T* summed, int64_t width) {
  for (int64_t d = 0; d < width; ++d) summed[d] = T(float(x[d]) + float(residual[d]));
}

struct Statistics {
  float mean, rstd;
};

// The variance is taken around the mean in a pass of its own: the mean of squares would lose it far from zero.
template <typename T>
IGF_INLINE Statistics statistics_body(const T* s, int64_t width, double eps) {
  const double count = static_cast<double>(width);
  const float mean = static_cast<float>(lane_sum<float>(width, [=](int64_t d) { return float(s[d]); }) / count);
  const double squares = lane_sum<float>(width, [=](int64_t d) {
    const float centred = float(s[d]) - mean;
    return centred * centred;
  });
  return {mean, static_cast<float>(1.0 / std::sqrt(squares / count + eps))};
}

template <typename T, typename W>
IGF_INLINE void scale_body(const T* s, Statistics of, const W* weight, const W* bias, T* y, int64_t width) {
  for (int64_t d = 0; d < width; ++d) {
    y[d] = T((float(s[d]) - of.mean) * of.rstd * float(weight[d]) + float(bias[d]));
  }
}

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_LAYER_NORM_SCALE(T, W)                                                                                  \
  IGF_CLONES void scale(const T* __restrict s, Statistics of, const W* __restrict weight, const W* __restrict bias, \
                        T* __restrict y, int64_t width) {                                                           \
    scale_body(s, of, weight, bias, y, width);                                                                      \
  }
#define IGF_LAYER_NORM_ROW(T)                                                                                      \
  IGF_CLONES void add(const T* __restrict x, const T* __restrict residual, T* __restrict summed, int64_t width) {  \
    add_body(x, residual, summed, width);                                                                          \
  }                                                                                                                \
  IGF_CLONES Statistics statistics(const T* s, int64_t width, double eps) { return statistics_body(s, width, eps); } \
  IGF_LAYER_NORM_SCALE(T, float)
IGF_LAYER_NORM_ROW(float)
IGF_LAYER_NORM_ROW(bfloat16)
IGF_LAYER_NORM_ROW(half)
IGF_LAYER_NORM_SCALE(bfloat16, bfloat16)
IGF_LAYER_NORM_SCALE(half, half)
#undef IGF_LAYER_NORM_ROW
#undef IGF_LAYER_NORM_SCALE

template <typename T, typename W>
void run(const LayerNormForward& a, double eps) {
  const int64_t width = a.width;
  parallel_for(0, a.rows, kGrainElements / (width + 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* s = static_cast<const T*>(a.x) + row * width;
      if (a.residual != nullptr) {
        T* summed = static_cast<T*>(a.summed) + row * width;
        add(s, static_cast<const T*>(a.residual) + row * width, summed, width);
        s = summed;
      }
      const Statistics of = statistics(s, width, eps);
      a.mean[row] = of.mean;
      a.rstd[row] = of.rstd;
      scale(s, of, static_cast<const W*>(a.weight), static_cast<const W*>(a.bias), static_cast<T*>(a.y) + row * width,
            width);
    }
  });
}

template <typename T>
void run_element(const LayerNormForward& a, double eps) {
  a.weight_element == Element::kFloat ? run<T, float>(a, eps) : run<T, T>(a, eps);
}

}  // namespace

void layer_norm_forward_cpu(const LayerNormForward& a, double eps) {
  switch (a.element) {
    case Element::kFloat: return run<float, float>(a, eps);
    case Element::kBfloat16: return run_element<bfloat16>(a, eps);
    case Element::kHalf: return run_element<half>(a, eps);
  }
}

}  // namespace igf
