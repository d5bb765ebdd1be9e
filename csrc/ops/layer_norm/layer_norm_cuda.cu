// Layer normalisation on CUDA devices, forward and backward.
//
// Work     forward: blocks walk over rows, one row a warp (up to 256 vectors of 16 bytes) or a block; the parameters
//          stand in shared memory, the row in registers between one read and one write, all its loads issued before
//          the first is used. Backward: the same, and each thread keeps its columns' share of dweight and dbias in
//          registers; a block leaves one partial row, and a second kernel adds those.
// Memory   bytes of a row of D elements of size e: forward 2 D e + 8 (4 D e + 8 with residual), backward 3 D e + 8
//          (4 D e + 8 with dsummed). Besides, each block reads the parameters once, and the backward writes and reads
//          8 D bytes of partial rows a block, one block a multiprocessor (two up to 32 vectors). Bound by memory: 16384
//          rows of 768 bf16 move 50 MB (100 MB with residual), which a copy at 4.3 TB/s takes 12 (24) us for. Not
//          measured.
// Numbers  a row's mean and variance are common to all its elements, so their error does not average out over them.
//          They are computed further than a float holds: the mean is corrected by the mean of what it leaves over; for
//          f32 each thread's sums keep what rounding takes (two-sum), threads are added up in double, and 1 / sqrt has
//          one Newton step and a low part. 16-bit rows keep plain f32 sums. Every order of additions is fixed.
// Limits   rows that are not whole 16-byte vectors, unaligned pointers and very wide rows (forward above 12288
//          elements, backward above 8192) take the kernels named *_any_width, which read a row up to three times.
// Source   Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 4; the gradient is in layer_norm.h.
//
// Why a second launch for the partial rows, and no last block: every block holds every column and all end together, so
// the last of 132 would read all 132 * 8 D bytes alone: 0.8 MB at D = 768, 1.7 MB at 1600, at about 0.1 MB a
// microsecond that one multiprocessor can ask for. In two stages (the last of twelve, then the last of those) it is two
// arrivals and two reads of 0.07 to 0.15 MB in a row, 3 to 5 us. A second launch costs 1 to 2 us of start, then reads
// with the whole device. These are estimates from bandwidths and latencies, not measurements.
#include <algorithm>

#include "device/launch.cuh"
#include "ops/layer_norm/layer_norm_backward.cuh"

namespace igf {
namespace layer_norm {
namespace {

constexpr int64_t kForwardWidth = 12288;  // the widest whose parameters fit into shared memory everywhere
constexpr int kSharedRowElements = 16;    // of a row, held by one thread when several warps share the row
constexpr int64_t kSharedBytesPerSm = 200 << 10;

template <typename T, int kThreads, int kVectors>
void start_forward(const LayerNormForward& a, const DeviceContext& context) {
  constexpr int kRows = kForwardRows<kThreads, kVectors>;
  const int64_t shared = 2 * staged_floats<kVectorLanes<T>>(a.width) * static_cast<int64_t>(sizeof(float));
  const int64_t per_sm = std::clamp<int64_t>(kSharedBytesPerSm / shared, 1, kForwardBlocks<kThreads, kVectors>);
  const int64_t blocks = std::min(ceil_div(a.rows, kRows), context.multiprocessors * per_sm);
  launch("layer_norm_forward_rows", &layer_norm_forward_rows<T, kThreads, kVectors>,
         {blocks, 1, kThreads, kRows, shared}, context, a);
}

template <typename T>
void forward(const LayerNormForward& a, const DeviceContext& context) {
  const int64_t vectors = a.width / kVectorLanes<T>;
  if (!a.aligned || a.width % kVectorLanes<T> != 0 || a.width > kForwardWidth) {
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
    start_forward<T, 256, 4>(a, context);
  } else if (vectors <= 2048) {
    start_forward<T, 512, 4>(a, context);
  } else if constexpr (sizeof(T) == 4) {  // 16-bit rows of so many vectors are wider than kForwardWidth
    start_forward<T, 512, 8>(a, context);
  }
}

// How a backward launch is cut: threads of a row (0 for the any-width kernel), vectors a thread, rows a block, blocks
// of a multiprocessor.
struct BackwardShape {
  int threads;
  int vectors;
  int rows;
  int per_sm;
};

template <int kThreads, int kVectors>
constexpr BackwardShape kShape = {kThreads, kVectors, kBackwardRows<kThreads, kVectors>, kVectors == 1 ? 2 : 1};

BackwardShape backward_shape(const LayerNormBackward& a) {
  const int lanes = kVectorBytes / static_cast<int>(element_bytes(a.element));
  constexpr BackwardShape kAnyWidth = {0, 0, 1, 2};
  if (!a.aligned || a.width % lanes != 0) return kAnyWidth;
  const int64_t vectors = a.width / lanes;
  if (vectors <= 32) return kShape<32, 1>;
  if (vectors <= 64) return kShape<32, 2>;
  if (vectors <= 96) return kShape<32, 3>;
  if (vectors <= 128) return kShape<32, 4>;
  if (vectors <= 256 && a.element == Element::kFloat) return kShape<32, 8>;  // 16-bit elements would fill the registers
  for (const int threads : {128, 256, 512}) {
    if (a.width <= threads * kSharedRowElements) return {threads, kSharedRowElements / lanes, 512 / threads, 1};
  }
  return kAnyWidth;
}

template <typename T, int kThreads, int kVectors>
void start_backward(const LayerNormBackward& a, int64_t blocks, const DeviceContext& context) {
  constexpr int kRows = kBackwardRows<kThreads, kVectors>;
  const int64_t shared = (1 + kRows) * staged_floats<kVectorLanes<T>>(a.width) * static_cast<int64_t>(sizeof(float));
  launch("layer_norm_backward_rows", &layer_norm_backward_rows<T, kThreads, kVectors>,
         {blocks, 1, kThreads, kRows, shared}, context, a);
}

template <typename T>
void backward_by_warps(const LayerNormBackward& a, int vectors, int64_t blocks, const DeviceContext& context) {
  switch (vectors) {
    case 1: return start_backward<T, 32, 1>(a, blocks, context);
    case 2: return start_backward<T, 32, 2>(a, blocks, context);
    case 3: return start_backward<T, 32, 3>(a, blocks, context);
    case 4: return start_backward<T, 32, 4>(a, blocks, context);
    default:
      if constexpr (sizeof(T) == 4) start_backward<T, 32, 8>(a, blocks, context);
  }
}

template <typename T>
void backward(const LayerNormBackward& a, const DeviceContext& context) {
  constexpr int kPerThread = kSharedRowElements / kVectorLanes<T>;
  const int64_t blocks = layer_norm_partial_rows(a, context);
  const BackwardShape shape = backward_shape(a);
  switch (shape.threads) {
    case 32: backward_by_warps<T>(a, shape.vectors, blocks, context); break;
    case 128: start_backward<T, 128, kPerThread>(a, blocks, context); break;
    case 256: start_backward<T, 256, kPerThread>(a, blocks, context); break;
    case 512: start_backward<T, 512, kPerThread>(a, blocks, context); break;
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
}  // namespace layer_norm

int64_t layer_norm_partial_rows(const LayerNormBackward& a, const DeviceContext& context) {
  const layer_norm::BackwardShape shape = layer_norm::backward_shape(a);
  return std::max<int64_t>(1, std::min<int64_t>(context.multiprocessors * shape.per_sm, ceil_div(a.rows, shape.rows)));
}

void layer_norm_forward_cuda(const LayerNormForward& a, const DeviceContext& context) {
  if (a.rows == 0) return;
  switch (a.element) {
    case Element::kFloat: return layer_norm::forward<float>(a, context);
    case Element::kBfloat16: return layer_norm::forward<device::bfloat16>(a, context);
    case Element::kHalf: return layer_norm::forward<device::half>(a, context);
  }
}

void layer_norm_backward_cuda(const LayerNormBackward& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return layer_norm::backward<float>(a, context);
    case Element::kBfloat16: return layer_norm::backward<device::bfloat16>(a, context);
    case Element::kHalf: return layer_norm::backward<device::half>(a, context);
  }
}

}  // namespace igf
