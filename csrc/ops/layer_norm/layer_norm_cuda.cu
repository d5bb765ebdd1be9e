// Layer normalisation on CUDA devices, forward and backward.
//
// Work     forward: one row a warp (up to 256 vectors of 16 bytes) or a block, the row held in registers between one
//          read and one write. Backward: blocks walk over rows, each thread keeps its columns' share of dweight and
//          dbias in registers; a second kernel adds the blocks' shares.
// Memory   bytes an element of size e, ideal: forward 2e (4e with residual), backward 3e (4e with dsummed), plus 8 bytes
//          a row of statistics and the partial rows, which are a few hundred whatever the number of rows.
// Numbers  two passes over the registers: the variance is the mean of squared differences. Sums in f32, fixed order.
// Limits   rows that are not whole 16-byte vectors, unaligned pointers and very wide rows (forward above 4096 vectors,
//          backward above 8192 elements) take the kernels named *_any_width, which read a row up to three times.
// Source   Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4; the gradient is in layer_norm.h.
#include <algorithm>

#include "device/launch.cuh"
#include "device/reductions.cuh"
#include "device/vectors.cuh"
#include "ops/layer_norm/layer_norm.h"

namespace igf {
namespace {

using namespace device;

constexpr int kAnyWidthThreads = 256;
constexpr int kColumnThreads = 32;       // columns a block of the last kernel adds up ...
constexpr int kSliceThreads = 8;         // ... and in how many slices it does
constexpr int kBackwardElements = 16;    // of a row, held by one thread of the backward kernel
constexpr int kBackwardThreadsPerSm = 512;

// Rows of one block: four warps share a block when a row needs only one.
template <int kThreads>
constexpr int kRowsPerBlock = kThreads == kWarp ? 4 : 1;

// weight and bias: the row's element type, or f32.
template <typename T>
IGF_DEVICE void load_parameter(float (&values)[kVectorLanes<T>], const void* base, Element element, int64_t index) {
  if (element == Element::kFloat) {
    load_floats(values, static_cast<const float*>(base), index);
  } else {
    load_vector(values, static_cast<const T*>(base), index);
  }
}

template <typename T>
IGF_DEVICE float parameter_at(const void* base, Element element, int64_t index) {
  return element == Element::kFloat ? static_cast<const float*>(base)[index]
                                    : to_float(static_cast<const T*>(base)[index]);
}

// One row by kThreads threads; thread t holds the vectors t, t + kThreads, ... of it, kVectors at most.
template <typename T, int kThreads, int kVectors>
IGF_KERNEL(kThreads * kRowsPerBlock<kThreads>)
layer_norm_forward_rows(LayerNormForward a) {
  constexpr int kLanes = kVectorLanes<T>;
  IGF_SHARED_ARRAY(float, scratch, kThreads / kWarp);
  const int64_t row = block_x() * kRowsPerBlock<kThreads> + thread_y();  // [0, rows)
  if (row >= a.rows) return;  // only whole warps leave: a block with several rows has no barrier
  const int64_t vectors = a.width / kLanes;
  const T* x = static_cast<const T*>(a.x) + row * a.width;
  const T* residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + row * a.width;

  float s[kVectors][kLanes];
  float total[1] = {0.0f};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = thread_x() + v * kThreads;  // [0, vectors), in vectors
    if (column >= vectors) continue;
    load_vector(s[v], x, column);
    if (residual != nullptr) {
      float r[kLanes];
      load_vector(r, residual, column);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) s[v][i] = to_float(from_float<T>(s[v][i] + r[i]));
      store_vector(static_cast<T*>(a.summed) + row * a.width, column, s[v]);
    }
#pragma unroll
    for (int i = 0; i < kLanes; ++i) total[0] += s[v][i];
  }
  row_sum<kThreads>(total, scratch);
  const float mean = total[0] / static_cast<float>(a.width);

  float squares[1] = {0.0f};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (thread_x() + v * kThreads >= vectors) continue;
#pragma unroll
    for (int i = 0; i < kLanes; ++i) squares[0] += (s[v][i] - mean) * (s[v][i] - mean);
  }
  row_sum<kThreads>(squares, scratch);
  const float rstd = 1.0f / sqrtf(squares[0] / static_cast<float>(a.width) + a.eps);
  if (thread_x() == 0) {
    a.mean[row] = mean;
    a.rstd[row] = rstd;
  }

#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = thread_x() + v * kThreads;
    if (column >= vectors) continue;
    float weight[kLanes];
    float bias[kLanes];
    load_parameter<T>(weight, a.weight, a.weight_element, column);
    load_parameter<T>(bias, a.bias, a.weight_element, column);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) s[v][i] = (s[v][i] - mean) * rstd * weight[i] + bias[i];
    store_vector(static_cast<T*>(a.y) + row * a.width, column, s[v]);
  }
}

// One row a block, element by element, whatever the width and the alignment.
template <typename T>
IGF_KERNEL(kAnyWidthThreads)
layer_norm_forward_any_width(LayerNormForward a) {
  IGF_SHARED_ARRAY(float, scratch, kAnyWidthThreads / kWarp);
  const int64_t row = block_x();  // [0, rows)
  const T* s = static_cast<const T*>(a.residual == nullptr ? a.x : a.summed) + row * a.width;
  float total[1] = {0.0f};
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    float value = to_float(static_cast<const T*>(a.x)[row * a.width + i]);
    if (a.residual != nullptr) {
      const T rounded = from_float<T>(value + to_float(static_cast<const T*>(a.residual)[row * a.width + i]));
      static_cast<T*>(a.summed)[row * a.width + i] = rounded;  // read again below, by this thread alone
      value = to_float(rounded);
    }
    total[0] += value;
  }
  row_sum<kAnyWidthThreads>(total, scratch);
  const float mean = total[0] / static_cast<float>(a.width);
  float squares[1] = {0.0f};
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    const float centred = to_float(s[i]) - mean;
    squares[0] += centred * centred;
  }
  row_sum<kAnyWidthThreads>(squares, scratch);
  const float rstd = 1.0f / sqrtf(squares[0] / static_cast<float>(a.width) + a.eps);
  if (thread_x() == 0) {
    a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    const float weight = parameter_at<T>(a.weight, a.weight_element, i);
    const float bias = parameter_at<T>(a.bias, a.weight_element, i);
    static_cast<T*>(a.y)[row * a.width + i] = from_float<T>((to_float(s[i]) - mean) * rstd * weight + bias);
  }
}

// Blocks walk over rows; partials[0][block] and partials[1][block] receive the block's sums of dy * n and of dy.
template <typename T, int kThreads>
IGF_KERNEL(kThreads * kRowsPerBlock<kThreads>)
layer_norm_backward_rows(LayerNormBackward a) {
  constexpr int kLanes = kVectorLanes<T>;
  constexpr int kVectors = kBackwardElements / kLanes;
  constexpr int kRows = kRowsPerBlock<kThreads>;
  IGF_SHARED_ARRAY(float, scratch, 2 * kThreads / kWarp);
  const int64_t vectors = a.width / kLanes;
  float weight[kVectors][kLanes];
  float dweight[kVectors][kLanes];
  float dbias[kVectors][kLanes];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = thread_x() + v * kThreads;  // [0, vectors), in vectors
    if (column < vectors) load_parameter<T>(weight[v], a.weight, a.weight_element, column);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) dweight[v][i] = dbias[v][i] = 0.0f;
  }

  for (int64_t row = block_x() * kRows + thread_y(); row < a.rows; row += grid_x() * kRows) {
    const float mean = a.mean[row];
    const float rstd = a.rstd[row];
    float n[kVectors][kLanes];  // the normalised row
    float g[kVectors][kLanes];  // dy * weight
    float sums[2] = {0.0f, 0.0f};  // of g * n, of g
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = thread_x() + v * kThreads;
      if (column >= vectors) continue;
      load_vector(g[v], static_cast<const T*>(a.dy) + row * a.width, column);
      load_vector(n[v], static_cast<const T*>(a.summed) + row * a.width, column);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        n[v][i] = (n[v][i] - mean) * rstd;
        dweight[v][i] += g[v][i] * n[v][i];
        dbias[v][i] += g[v][i];
        g[v][i] *= weight[v][i];
        sums[0] += g[v][i] * n[v][i];
        sums[1] += g[v][i];
      }
    }
    row_sum<kThreads>(sums, scratch);
    const float along = sums[0] / static_cast<float>(a.width);
    const float level = sums[1] / static_cast<float>(a.width);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = thread_x() + v * kThreads;
      if (column >= vectors) continue;
#pragma unroll
      for (int i = 0; i < kLanes; ++i) g[v][i] = rstd * (g[v][i] - (level + n[v][i] * along));
      if (a.dsummed != nullptr) {
        load_vector(n[v], static_cast<const T*>(a.dsummed) + row * a.width, column);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) g[v][i] += n[v][i];
      }
      store_vector(static_cast<T*>(a.dx) + row * a.width, column, g[v]);
    }
  }

  // The rows of a block add up one after the other, so that the order is always the same.
  float* weight_partial = a.partials + block_x() * a.width;
  float* bias_partial = a.partials + (grid_x() + block_x()) * a.width;
  if constexpr (kRows == 1) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = thread_x() + v * kThreads;
      if (column >= vectors) continue;
      store_floats(weight_partial, column, dweight[v]);
      store_floats(bias_partial, column, dbias[v]);
    }
  } else {
    IGF_SHARED_ARRAY(float, block_sums, 2 * kThreads * kBackwardElements);
    for (int turn = 0; turn < kRows; ++turn) {
      if (thread_y() == turn) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
#pragma unroll
          for (int i = 0; i < kLanes; ++i) {
            float* sum = block_sums + 2 * ((v * kLanes + i) * kThreads + thread_x());
            sum[0] = (turn == 0 ? 0.0f : sum[0]) + dweight[v][i];
            sum[1] = (turn == 0 ? 0.0f : sum[1]) + dbias[v][i];
          }
        }
      }
      block_barrier();  // this turn's sums are complete before the next turn adds to them, and before they are stored
    }
    if (thread_y() != 0) return;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = thread_x() + v * kThreads;
      if (column >= vectors) continue;
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        const float* sum = block_sums + 2 * ((v * kLanes + i) * kThreads + thread_x());
        weight_partial[column * kLanes + i] = sum[0];
        bias_partial[column * kLanes + i] = sum[1];
      }
    }
  }
}

// The same for any width and alignment; each thread owns columns of the block's partial rows and adds to them in place.
template <typename T>
IGF_KERNEL(kAnyWidthThreads)
layer_norm_backward_any_width(LayerNormBackward a) {
  IGF_SHARED_ARRAY(float, scratch, 2 * kAnyWidthThreads / kWarp);
  float* weight_partial = a.partials + block_x() * a.width;
  float* bias_partial = a.partials + (grid_x() + block_x()) * a.width;
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) weight_partial[i] = bias_partial[i] = 0.0f;
  for (int64_t row = block_x(); row < a.rows; row += grid_x()) {
    const T* dy = static_cast<const T*>(a.dy) + row * a.width;
    const T* s = static_cast<const T*>(a.summed) + row * a.width;
    const float mean = a.mean[row];
    const float rstd = a.rstd[row];
    float sums[2] = {0.0f, 0.0f};
    for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
      const float n = (to_float(s[i]) - mean) * rstd;
      const float d = to_float(dy[i]);
      const float g = d * parameter_at<T>(a.weight, a.weight_element, i);
      weight_partial[i] += d * n;
      bias_partial[i] += d;
      sums[0] += g * n;
      sums[1] += g;
    }
    row_sum<kAnyWidthThreads>(sums, scratch);
    const float along = sums[0] / static_cast<float>(a.width);
    const float level = sums[1] / static_cast<float>(a.width);
    for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
      const float n = (to_float(s[i]) - mean) * rstd;
      float dx = rstd * (to_float(dy[i]) * parameter_at<T>(a.weight, a.weight_element, i) - (level + n * along));
      if (a.dsummed != nullptr) dx += to_float(static_cast<const T*>(a.dsummed)[row * a.width + i]);
      static_cast<T*>(a.dx)[row * a.width + i] = from_float<T>(dx);
    }
  }
}

// Adds the partial rows of dweight (block_y = 0) and dbias (block_y = 1), column by column.
template <typename W>
IGF_KERNEL(kColumnThreads * kSliceThreads)
layer_norm_add_partials(LayerNormBackward a, int64_t partial_rows) {
  IGF_SHARED_ARRAY(float, slices, kSliceThreads * kColumnThreads);
  const int64_t column = block_x() * kColumnThreads + thread_x();  // [0, width) where it is used
  const float* partial = a.partials + block_y() * partial_rows * a.width;
  float sum = 0.0f;
  if (column < a.width) {
    for (int64_t row = thread_y(); row < partial_rows; row += kSliceThreads) sum += partial[row * a.width + column];
  }
  slices[thread_y() * kColumnThreads + thread_x()] = sum;
  block_barrier();  // all slices are in shared memory
  if (thread_y() != 0 || column >= a.width) return;
  float total = 0.0f;
#pragma unroll
  for (int slice = 0; slice < kSliceThreads; ++slice) total += slices[slice * kColumnThreads + thread_x()];
  static_cast<W*>(block_y() == 0 ? a.dweight : a.dbias)[column] = from_float<W>(total);
}

template <typename T, int kThreads, int kVectors>
void start_forward(const LayerNormForward& a, const DeviceContext& context) {
  constexpr int kRows = kRowsPerBlock<kThreads>;
  launch("layer_norm_forward_rows", &layer_norm_forward_rows<T, kThreads, kVectors>,
         {ceil_div(a.rows, kRows), 1, kThreads, kRows}, context, a);
}

template <typename T>
void forward(const LayerNormForward& a, const DeviceContext& context) {
  const int64_t vectors = a.width / kVectorLanes<T>;
  if (!a.aligned || a.width % kVectorLanes<T> != 0 || vectors > 4096) {
    launch("layer_norm_forward_any_width", &layer_norm_forward_any_width<T>, {a.rows, 1, kAnyWidthThreads, 1}, context,
           a);
  } else if (vectors <= 32) {
    start_forward<T, 32, 1>(a, context);
  } else if (vectors <= 64) {
    start_forward<T, 32, 2>(a, context);
  } else if (vectors <= 128) {
    start_forward<T, 32, 4>(a, context);
  } else if (vectors <= 256) {
    start_forward<T, 32, 8>(a, context);
  } else if (vectors <= 512) {
    start_forward<T, 128, 4>(a, context);
  } else if (vectors <= 1024) {
    start_forward<T, 128, 8>(a, context);
  } else if (vectors <= 2048) {
    start_forward<T, 512, 4>(a, context);
  } else {
    start_forward<T, 512, 8>(a, context);
  }
}

// Threads of a row in the backward kernel; 0 stands for the any-width kernel.
int backward_threads(const LayerNormBackward& a) {
  const int64_t lanes = kVectorBytes / static_cast<int64_t>(element_bytes(a.element));
  if (!a.aligned || a.width % lanes != 0) return 0;
  for (const int threads : {32, 128, 256, 512}) {
    if (a.width <= threads * kBackwardElements) return threads;
  }
  return 0;
}

template <typename T, int kThreads>
void start_backward(const LayerNormBackward& a, int64_t blocks, const DeviceContext& context) {
  launch("layer_norm_backward_rows", &layer_norm_backward_rows<T, kThreads>,
         {blocks, 1, kThreads, kRowsPerBlock<kThreads>}, context, a);
}

template <typename T>
void backward(const LayerNormBackward& a, const DeviceContext& context) {
  const int64_t blocks = layer_norm_partial_rows(a, context);
  switch (backward_threads(a)) {
    case 32: start_backward<T, 32>(a, blocks, context); break;
    case 128: start_backward<T, 128>(a, blocks, context); break;
    case 256: start_backward<T, 256>(a, blocks, context); break;
    case 512: start_backward<T, 512>(a, blocks, context); break;
    default:
      launch("layer_norm_backward_any_width", &layer_norm_backward_any_width<T>, {blocks, 1, kAnyWidthThreads, 1},
             context, a);
  }
  const LaunchShape columns{ceil_div(a.width, kColumnThreads), 2, kColumnThreads, kSliceThreads};
  if (a.weight_element == Element::kFloat) {
    launch("layer_norm_add_partials", &layer_norm_add_partials<float>, columns, context, a, blocks);
  } else {
    launch("layer_norm_add_partials", &layer_norm_add_partials<T>, columns, context, a, blocks);
  }
}

}  // namespace

int64_t layer_norm_partial_rows(const LayerNormBackward& a, const DeviceContext& context) {
  const int row_threads = backward_threads(a);
  const int rows_per_block = row_threads == kWarp ? kRowsPerBlock<kWarp> : 1;
  const int block_threads = row_threads == 0 ? kAnyWidthThreads : row_threads * rows_per_block;
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * (kBackwardThreadsPerSm / block_threads);
  return std::max<int64_t>(1, std::min(resident, ceil_div(a.rows, rows_per_block)));
}

void layer_norm_forward_cuda(const LayerNormForward& a, const DeviceContext& context) {
  if (a.rows == 0) return;
  switch (a.element) {
    case Element::kFloat: return forward<float>(a, context);
    case Element::kBfloat16: return forward<device::bfloat16>(a, context);
    case Element::kHalf: return forward<device::half>(a, context);
  }
}

void layer_norm_backward_cuda(const LayerNormBackward& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return backward<float>(a, context);
    case Element::kBfloat16: return backward<device::bfloat16>(a, context);
    case Element::kHalf: return backward<device::half>(a, context);
  }
}

}  // namespace igf
