// Bias and GELU on CUDA devices, forward and backward.
//
// Work     a panel is what 32 threads hold side by side: 32 vectors of 16 bytes (fewer for narrow rows). A block takes
//          the same panel of many rows, kBatch rows of a thread on their way at once, with its bias in registers. In
//          the backward each thread adds up its columns; the block's sums go to a partial row, and of each panel the
//          block that ends last adds up that panel's.
// Memory   bytes an element of size e: forward 2 e, backward 3 e, besides the bias once a block and, in the backward,
//          4 bytes a column and block, written and read. Bound by memory: 16384 x 3072 bf16 move 201 (302) MB, which a
//          copy at 4.3 TB/s takes 47 (70) us for. Not measured.
// Numbers  f32 uses the CPU's own functions (gelu_gate.h), 16-bit elements the GPU's fast exponential and division,
//          whose error is far below the rounding of the result. dbias sums f32 gradients before they are rounded.
// Limits   rows that are not whole 16-byte vectors and unaligned pointers are moved element by element.
// Source   Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2 (both forms).
//
// Why the last block here and a second launch in layer_norm: here a block holds one panel, so the tail is one panel's
// partial rows (at most 2 * 132 / panels rows of 1 KB), read by a block for each panel at once: under a microsecond.
#include <algorithm>
#include <type_traits>

#include "device/fast_math.cuh"
#include "device/held.cuh"
#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "ops/bias_gelu/gelu_gate.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kBatch = 4;          // rows of a thread that are on their way at once
constexpr int kForwardBlocks = 4;   // of a multiprocessor
constexpr int kBackwardBlocks = 2;

struct Fast {
  static IGF_DEVICE float exp(float x) { return fast_exp2(x * 1.44269504f); }
  static IGF_DEVICE float inverse(float x) { return fast_divide(1.0f, x); }
};

template <typename T>
using PrecisionOf = std::conditional_t<sizeof(T) == 4, Accurate, Fast>;

template <typename T>
IGF_DEVICE float bias_at(const void* base, Element element, int64_t index IGF_SITE_PARAMETER) {
  return element == Element::kFloat ? load(static_cast<const float*>(base) + index IGF_SITE)
                                    : to_float(load(static_cast<const T*>(base) + index IGF_SITE));
}

// How a block's threads stand: threads_x side by side, each with kLanes columns, threads_y rows of them.
struct PanelShape {
  int threads_x;
  int threads_y;
};

// One float for each lane of each thread in shared memory, reached by thread or by column without bank conflicts.
template <int kLanes>
struct LaneArray {
  static constexpr int kStride = kThreads + 32 / kLanes;
  static constexpr int kFloats = kLanes * kStride;
  float* base;

  IGF_DEVICE float& of_thread(int thread, int lane) const { return base[lane * kStride + thread]; }
  // The column [0, threads_x * kLanes) of the panel in row `y` of the block's threads.
  IGF_DEVICE float& of_column(int column, int y, int threads_x) const {
    return base[column % kLanes * kStride + y * threads_x + column / kLanes];
  }
};

// The bias of the thread's columns. Every thread of the block must call it.
template <typename T, int kLanes>
IGF_DEVICE void load_bias(float (&bias)[kLanes], const void* base, Element element, int64_t first, int columns,
                          LaneArray<kLanes> shared, int threads_x IGF_SITE_PARAMETER) {
  for (int column = thread_index(); column < columns; column += kThreads) {  // [0, columns)
    shared.of_column(column, 0, threads_x) = bias_at<T>(base, element, first + column IGF_SITE);
  }
  block_barrier();  // the panel's bias is in shared memory
#pragma unroll
  for (int i = 0; i < kLanes; ++i) bias[i] = thread_x() * kLanes < columns ? shared.of_thread(thread_x(), i) : 0.0f;
  block_barrier();  // it has been read, and the array may be written again
}

template <typename T, GeluKind kKind, int kLanes>
IGF_KERNEL(kThreads, kForwardBlocks)
bias_gelu_forward_panels(BiasGeluForward a, PanelShape shape) {
  IGF_SHARED_ARRAY(float, shared, LaneArray<kLanes>::kFloats);
  const int64_t panel_columns = shape.threads_x * kLanes;
  const int64_t first = block_x() * panel_columns;  // [0, width)
  const int columns = static_cast<int>(panel_columns < a.width - first ? panel_columns : a.width - first);
  float bias[kLanes];
  load_bias<T>(bias, a.bias, a.bias_element, first, columns, LaneArray<kLanes>{shared}, shape.threads_x);
  if (thread_x() * kLanes >= columns) return;

  const int64_t step = grid_y() * shape.threads_y;
  const int64_t column = first + thread_x() * kLanes;
  for (int64_t row = block_y() * shape.threads_y + thread_y(); row < a.rows; row += kBatch * step) {  // [0, rows)
    Held<T, kLanes> x[kBatch] = {};
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (row + b * step >= a.rows) continue;
      const T* const place = static_cast<const T*>(a.x) + (row + b * step) * a.width + column;
      x[b] = load_once(reinterpret_cast<const Held<T, kLanes>*>(place));
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (row + b * step >= a.rows) continue;
      float v[kLanes];
      unpack_held<T>(v, x[b]);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) v[i] = gelu<kKind, PrecisionOf<T>>(v[i] + bias[i]);
      store_lanes(static_cast<T*>(a.y) + (row + b * step) * a.width + column, v);
    }
  }
}

template <typename T, GeluKind kKind, int kLanes>
IGF_KERNEL(kThreads, kBackwardBlocks)
bias_gelu_backward_panels(BiasGeluBackward a, PanelShape shape, uint32_t* arrivals) {
  IGF_SHARED_ARRAY(float, shared, LaneArray<kLanes>::kFloats);
  const LaneArray<kLanes> lanes{shared};
  const int64_t panel_columns = shape.threads_x * kLanes;
  const int64_t step = grid_y() * shape.threads_y;
  for (int64_t first = block_x() * panel_columns; first < a.width; first += grid_x() * panel_columns) {  // [0, width)
    const int columns = static_cast<int>(panel_columns < a.width - first ? panel_columns : a.width - first);
    float bias[kLanes];
    load_bias<T>(bias, a.bias, a.bias_element, first, columns, lanes, shape.threads_x);
    const int64_t column = first + thread_x() * kLanes;
    const int64_t rows = thread_x() * kLanes < columns ? a.rows : 0;
    float sums[kLanes] = {};
    for (int64_t row = block_y() * shape.threads_y + thread_y(); row < rows; row += kBatch * step) {  // [0, rows)
      Held<T, kLanes> x[kBatch] = {};
      Held<T, kLanes> dy[kBatch] = {};
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (row + b * step >= rows) continue;
        const int64_t place = (row + b * step) * a.width + column;
        x[b] = load_once(reinterpret_cast<const Held<T, kLanes>*>(static_cast<const T*>(a.x) + place));
        dy[b] = load_once(reinterpret_cast<const Held<T, kLanes>*>(static_cast<const T*>(a.dy) + place));
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (row + b * step >= rows) continue;
        float v[kLanes];
        float gradient[kLanes];
        unpack_held<T>(v, x[b]);
        unpack_held<T>(gradient, dy[b]);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) {
          gradient[i] *= slope<kKind, PrecisionOf<T>>(v[i] + bias[i]);
          sums[i] += gradient[i];
        }
        store_lanes(static_cast<T*>(a.dx) + (row + b * step) * a.width + column, gradient);
      }
    }
#pragma unroll
    for (int i = 0; i < kLanes; ++i) lanes.of_thread(thread_index(), i) = sums[i];
    block_barrier();  // every thread's sums are in shared memory
    for (int c = thread_index(); c < columns; c += kThreads) {  // [0, columns)
      float total = 0.0f;
      for (int y = 0; y < shape.threads_y; ++y) total += lanes.of_column(c, y, shape.threads_x);
      store(a.partials + block_y() * a.width + first + c, total);
    }
    // No barrier: the next panel's bias goes, column by column, to places that only the same thread has just read.
  }

  if (!is_last_block(arrivals + block_x(), static_cast<uint32_t>(grid_y()))) return;
  for (int64_t first = block_x() * panel_columns; first < a.width; first += grid_x() * panel_columns) {
    for (int64_t c = first + thread_index(); c < first + panel_columns && c < a.width; c += kThreads) {  // [0, width)
      float total = 0.0f;
#pragma unroll 4
      for (int64_t group = 0; group < grid_y(); ++group) {
        total += load_shared_by_blocks(a.partials + group * a.width + c);
      }
      if (a.bias_element == Element::kFloat) {
        store(static_cast<float*>(a.dbias) + c, total);
      } else {
        store(static_cast<T*>(a.dbias) + c, from_float<T>(total));
      }
    }
  }
}

int lanes_of(int64_t width, Element element, bool aligned) {
  const int lanes = kVectorBytes / static_cast<int>(element_bytes(element));
  return aligned && width % lanes == 0 ? lanes : 1;
}

PanelShape panel_shape(int64_t width, int lanes) {
  int threads_x = kWarp;
  while (threads_x > 8 && width <= threads_x / 2 * lanes) threads_x /= 2;
  return {threads_x, kThreads / threads_x};
}

// Blocks side by side, at most `most`, and below each other: as many as stay resident, and no more than there are rows.
LaunchShape launch_shape(int64_t rows, int64_t width, int lanes, int64_t most, int per_sm,
                         const DeviceContext& context) {
  const PanelShape panel = panel_shape(width, lanes);
  const int64_t panels = std::min(ceil_div(width, panel.threads_x * lanes), most);
  const int64_t resident = ceil_div(static_cast<int64_t>(context.multiprocessors) * per_sm, panels);
  const int64_t groups = std::clamp<int64_t>(ceil_div(rows, panel.threads_y), 1, resident);
  return {panels, groups, panel.threads_x, panel.threads_y};
}

template <typename T, GeluKind kKind, int kLanes>
void start(const BiasGeluForward& a, const DeviceContext& context) {
  launch("bias_gelu_forward_panels", &bias_gelu_forward_panels<T, kKind, kLanes>,
         launch_shape(a.rows, a.width, kLanes, a.width, kForwardBlocks, context), context, a,
         panel_shape(a.width, kLanes));
}

LaunchShape backward_shape(const BiasGeluBackward& a, const DeviceContext& context) {
  return launch_shape(a.rows, a.width, lanes_of(a.width, a.element, a.aligned), kArrivalCounters, kBackwardBlocks,
                      context);
}

template <typename T, GeluKind kKind, int kLanes>
void start(const BiasGeluBackward& a, const DeviceContext& context) {
  launch("bias_gelu_backward_panels", &bias_gelu_backward_panels<T, kKind, kLanes>, backward_shape(a, context), context,
         a, panel_shape(a.width, kLanes), context.arrivals);
}

template <typename T, typename Arguments>
void start_kind(const Arguments& a, const DeviceContext& context) {
  const bool whole = lanes_of(a.width, a.element, a.aligned) > 1;
  if (a.kind == GeluKind::kTanh) {
    whole ? start<T, GeluKind::kTanh, kVectorLanes<T>>(a, context) : start<T, GeluKind::kTanh, 1>(a, context);
  } else {
    whole ? start<T, GeluKind::kExact, kVectorLanes<T>>(a, context) : start<T, GeluKind::kExact, 1>(a, context);
  }
}

template <typename Arguments>
void start_element(const Arguments& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return start_kind<float>(a, context);
    case Element::kBfloat16: return start_kind<device::bfloat16>(a, context);
    case Element::kHalf: return start_kind<device::half>(a, context);
  }
}

}  // namespace

int64_t bias_gelu_partial_rows(const BiasGeluBackward& a, const DeviceContext& context) {
  return a.width == 0 ? 0 : backward_shape(a, context).blocks_y;
}

void bias_gelu_forward_cuda(const BiasGeluForward& a, const DeviceContext& context) {
  if (a.rows > 0 && a.width > 0) start_element(a, context);
}

void bias_gelu_backward_cuda(const BiasGeluBackward& a, const DeviceContext& context) {
  if (a.width > 0) start_element(a, context);
}

}  // namespace igf
