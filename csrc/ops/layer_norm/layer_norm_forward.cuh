// The forward kernels of layer normalisation; see layer_norm_cuda.cu for what they move and compute.
#pragma once

#include <type_traits>

#include "device/columns.cuh"
#include "device/fast_math.cuh"
#include "device/held.cuh"
#include "device/reductions.cuh"
#include "ops/layer_norm/layer_norm.h"

namespace igf {
namespace layer_norm {

using namespace device;

constexpr int kAnyWidthThreads = 256;

// Rows of one block: several warps share a block, and its copy of the parameters, when a row needs only one.
template <int kThreads, int kVectors>
constexpr int kForwardRows = kThreads != kWarp ? 1 : kVectors == 8 ? 4 : 8;

// Blocks of a multiprocessor: enough rows on their way to hide the memory, and registers for what a thread holds.
template <int kThreads, int kVectors>
constexpr int kForwardBlocks = kThreads == 512 ? 1
                                               : (kVectors <= 2 ? 1024 : kVectors == 4 ? 768 : 512) /
                                                     (kThreads * kForwardRows<kThreads, kVectors>);

using Words = Vector<uint32_t, 4>;  // Held<T, kVectorLanes<T>> for every T

// A row of vectors from memory that the launch reads once; nothing for a null base. Thread t holds the vectors t,
// t + kThreads, ... below `vectors`. The others become 0: were they left alone, their registers would stay taken.
template <int kThreads, int kVectors>
IGF_DEVICE void load_row(Words (&held)[kVectors], const void* base, int64_t row, int vectors IGF_SITE_PARAMETER) {
  const Words* const places = static_cast<const Words*>(base) + row * vectors + thread_x();
  if (base == nullptr) vectors = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    held[v] = Words{};
    if (thread_x() + v * kThreads < vectors) held[v] = load_once(places + v * kThreads IGF_SITE);
  }
}

// What sums over a row of T are kept in once a thread has added up its own share. The statistics are common to a whole
// row, so their error does not average out over it; f32 results show it, 16-bit results do not.
template <typename T>
using RowSum = std::conditional_t<sizeof(T) == 4, double, float>;

// A thread's share of a sum over a row of T. For f32 what each addition rounds away is kept beside the sum (Knuth's
// two-sum), so that it costs no double arithmetic, which most GPUs have little of.
template <typename T>
struct Share {
  float sum = 0.0f;

  IGF_DEVICE void add(float x) { sum += x; }
  IGF_DEVICE void add_product(float a, float b) { sum = fmaf(a, b, sum); }
  IGF_DEVICE float value() const { return sum; }
};

template <>
struct Share<float> {
  float sum = 0.0f;
  float low = 0.0f;

  IGF_DEVICE void add(float x) {
    const float next = sum + x;
    const float x_part = next - sum;
    low += (sum - (next - x_part)) + (x - x_part);
    sum = next;
  }
  IGF_DEVICE void add_product(float a, float b) {
    const float product = a * b;
    low += fmaf(a, b, -product);
    add(product);
  }
  IGF_DEVICE double value() const { return static_cast<double>(sum) + static_cast<double>(low); }
};

// What a row of T becomes once its mean, as far as one float can hold it, is taken away.
template <typename T>
struct Statistics {
  float beyond;    // the mean of the rest: the true mean is the rounded one plus this
  float rstd;      // 1 / sqrt(variance + eps) ...
  float rstd_low;  // ... and what rounding it to a float took

  // sums: of s - mean, and of its square.
  IGF_DEVICE Statistics(const RowSum<T> (&sums)[2], float width, float eps) {
    beyond = static_cast<float>(sums[0]) / width;
    const RowSum<T> squares = sums[1] - sums[0] * static_cast<RowSum<T>>(beyond);
    // variance + eps = v + v_low: the sum, the quotient and the second sum leave what they round away in v_low.
    const float square_sum = fmaxf(static_cast<float>(squares), 0.0f);
    const float square_low = static_cast<float>(squares - static_cast<RowSum<T>>(square_sum));
    const float variance = square_sum / width;
    const float v = variance + eps;
    const float eps_part = v - variance;
    const float v_low = (variance - (v - eps_part)) + (eps - eps_part) +
                        (fmaf(-variance, width, square_sum) + square_low) / width;
    // One Newton step from an approximation r; its residual 1 - v r^2 is computed without rounding what cancels.
    const float r = fast_rsqrt(v);
    const float root = v * r;
    const float residual = fmaf(-root, r, 1.0f) - (fmaf(v, r, -root) + v_low * r) * r;
    const float correction = 0.5f * r * residual;
    const bool is_usual = v < __builtin_huge_valf();  // an infinite v would make the correction NaN
    rstd = is_usual ? r + correction : r;
    rstd_low = is_usual ? (r - rstd) + correction : 0.0f;
  }

  // (s - mean) rstd weight + bias, for centred = s - the rounded mean.
  IGF_DEVICE float scaled(float centred, float weight, float bias) const {
    const float rest = centred - beyond;
    const float n = rest * rstd;
    if constexpr (sizeof(T) != 4) return fmaf(n, weight, bias);
    return fmaf(n, weight, fmaf(fmaf(rest, rstd, -n) + rest * rstd_low, weight, bias));
  }
};

// Blocks walk over rows, each row by kThreads threads that hold it in registers from one read to one write.
template <typename T, int kThreads, int kVectors>
IGF_KERNEL(kThreads * (kForwardRows<kThreads, kVectors>), (kForwardBlocks<kThreads, kVectors>))
layer_norm_forward_rows(LayerNormForward a) {
  constexpr int kLanes = kVectorLanes<T>;
  constexpr int kRows = kForwardRows<kThreads, kVectors>;
  IGF_DYNAMIC_SHARED(staged);  // weight, then bias
  IGF_SHARED_ARRAY(RowSum<T>, scratch, 2 * kThreads / kWarp);
  const int width = static_cast<int>(a.width);
  const int vectors = width / kLanes;
  const int plane = static_cast<int>(staged_plane<kLanes>(width));
  const StagedColumns<kLanes> weight{reinterpret_cast<float*>(staged), plane};
  const StagedColumns<kLanes> bias{weight.base + staged_floats<kLanes>(width), plane};
  const int64_t step = grid_x() * kRows;
  Words x[kVectors];
  Words residual[kVectors];

  int64_t row = block_x() * kRows + thread_y();  // [0, rows) where it is used; one for the block when it has a barrier
  if (row < a.rows) {  // on its way while the parameters are staged
    load_row<kThreads>(x, a.x, row, vectors);
    load_row<kThreads>(residual, a.residual, row, vectors);
  }
#pragma unroll 1
  for (int quad = thread_index(); quad < width / 4; quad += kThreads * kRows) {  // [0, width / 4)
    const Packed<float> scale = column_quad<T>(a.weight, a.weight_element, quad);
    const Packed<float> shift = column_quad<T>(a.bias, a.weight_element, quad);
    store(weight.place(quad), scale);
    store(bias.place(quad), shift);
  }
  block_barrier();  // the parameters are staged

  while (row < a.rows) {
    const int64_t first = row * vectors + thread_x();  // of this thread's vectors
    float row_total = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (thread_x() + v * kThreads >= vectors) continue;
      float s[kLanes];
      unpack_held<T>(s, x[v]);
      if (a.residual != nullptr) {
        float more[kLanes];
        unpack_held<T>(more, residual[v]);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) s[i] += more[i];
        x[v] = __builtin_bit_cast(Words, pack<T>(s));  // x is s from here on
        store_once(static_cast<Words*>(a.summed) + first + v * kThreads, x[v]);
        unpack_held<T>(s, x[v]);
      }
#pragma unroll
      for (int i = 0; i < kLanes; ++i) row_total += s[i];
    }
    RowSum<T> total[1] = {static_cast<RowSum<T>>(row_total)};
    row_sum<kThreads>(total, scratch);
    const float mean = static_cast<float>(total[0]) / static_cast<float>(width);

    Share<T> centred;
    Share<T> squares;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (thread_x() + v * kThreads >= vectors) continue;
      float s[kLanes];
      unpack_held<T>(s, x[v]);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        centred.add(s[i] - mean);
        squares.add_product(s[i] - mean, s[i] - mean);
      }
    }
    RowSum<T> sums[2] = {centred.value(), squares.value()};
    row_sum<kThreads>(sums, scratch);
    const Statistics<T> statistics(sums, static_cast<float>(width), a.eps);
    if (thread_x() == 0) {
      store(a.mean + row, mean + statistics.beyond);
      store(a.rstd + row, statistics.rstd);
    }

#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = thread_x() + v * kThreads;  // [0, vectors), in vectors
      if (column >= vectors) continue;
      float s[kLanes];
      float scale[kLanes];
      float shift[kLanes];
      unpack_held<T>(s, x[v]);
      weight.get(scale, column);
      bias.get(shift, column);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) s[i] = statistics.scaled(s[i] - mean, scale[i], shift[i]);
      store(static_cast<Packed<T>*>(a.y) + first + v * kThreads, pack<T>(s));
    }

    row += step;
    if (row < a.rows) {
      load_row<kThreads>(x, a.x, row, vectors);
      load_row<kThreads>(residual, a.residual, row, vectors);
    }
  }
}

// weight or bias: the row's element type, or f32.
template <typename T>
IGF_DEVICE float parameter_at(const void* base, Element element, int64_t index IGF_SITE_PARAMETER) {
  return element == Element::kFloat ? load(static_cast<const float*>(base) + index IGF_SITE)
                                    : to_float(load(static_cast<const T*>(base) + index IGF_SITE));
}

// One row a block, element by element, whatever the width and the alignment.
template <typename T>
IGF_KERNEL(kAnyWidthThreads)
layer_norm_forward_any_width(LayerNormForward a) {
  IGF_SHARED_ARRAY(RowSum<T>, scratch, 2 * kAnyWidthThreads / kWarp);
  const int64_t row = block_x();  // [0, rows)
  const int64_t first = row * a.width;
  const T* const x = static_cast<const T*>(a.x) + first;
  const T* const s = a.residual == nullptr ? x : static_cast<const T*>(a.summed) + first;
  const float width = static_cast<float>(a.width);

  float row_total = 0.0f;
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    T value = load(x + i);
    if (a.residual != nullptr) {
      value = from_float<T>(to_float(value) + to_float(load_once(static_cast<const T*>(a.residual) + first + i)));
      store(static_cast<T*>(a.summed) + first + i, value);  // read again below, by this thread alone
    }
    row_total += to_float(value);
  }
  RowSum<T> total[1] = {static_cast<RowSum<T>>(row_total)};
  row_sum<kAnyWidthThreads>(total, scratch);
  const float mean = static_cast<float>(total[0]) / width;

  Share<T> centred;
  Share<T> squares;
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    const float c = to_float(load(s + i)) - mean;
    centred.add(c);
    squares.add_product(c, c);
  }
  RowSum<T> sums[2] = {centred.value(), squares.value()};
  row_sum<kAnyWidthThreads>(sums, scratch);
  const Statistics<T> statistics(sums, width, a.eps);
  if (thread_x() == 0) {
    store(a.mean + row, mean + statistics.beyond);
    store(a.rstd + row, statistics.rstd);
  }

  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    const float weight = parameter_at<T>(a.weight, a.weight_element, i);
    const float bias = parameter_at<T>(a.bias, a.weight_element, i);
    const float value = statistics.scaled(to_float(load(s + i)) - mean, weight, bias);
    store(static_cast<T*>(a.y) + first + i, from_float<T>(value));
  }
}

}  // namespace layer_norm
}  // namespace igf
