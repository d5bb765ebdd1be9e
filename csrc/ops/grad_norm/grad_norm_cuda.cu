// grad_norm on CUDA devices: one launch over all tensors, of any mixture of dtypes.
//
// Work     a table of the tensors in chunks of 32768 elements (device/tensor_table.h); blocks that stay take every
//          grid-th chunk and write its sum. A thread reads four 16-byte vectors at a time, all under way before the
//          first is used. The last block adds the chunks' sums.
// Memory   every element read once: 4 bytes (16-bit: 2), and 16 bytes a chunk for the sums. Bound by memory: 58 us for
//          124 M 16-bit elements at 4.3 TB/s. The vectors are left in the second-level cache: an optimizer that reads
//          the gradients next finds the last ones there.
// Numbers  squares of 16 (16-bit: 32) elements are added in f32, then in double. Where that f32 sum tells that a square
//          may have left f32's range it is made again from elements scaled by a power of two, so that no instruction
//          works on single elements in double, which is slow on most GPUs. Orders of addition hang on the list alone.
// Limits   a tensor that does not stand on 16 bytes, and the last elements of one that is not whole vectors, are read
//          one by one and squared in double. At most 2^31 chunks. Speed: not measured.
// Source   the equation is in grad_norm.h.
#include <algorithm>

#include "device/last_block.cuh"
#include "device/reductions.cuh"
#include "device/tensor_table.cuh"
#include "device/vectors.cuh"
#include "ops/grad_norm/grad_norm.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kVectors = 4;       // of a thread, under way together
constexpr int kAhead = 16;        // chunks' sums of a thread of the last block, under way together
constexpr int kBlocksPerSm = 4;  // with 64 registers a thread

// The sum of squares of what one thread has read, of which `scale` times each element has a square that f32 holds.
template <typename T>
IGF_DEVICE double squares_scaled(const Packed<T> (&packed)[kVectors], float scale) {
  float sums[kVectors] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kVectorLanes<T>; ++i) {
      const float x = to_float(packed[v].lanes[i]) * scale;
      sums[v] += x * x;
    }
  }
  const double back = 1.0 / scale;  // exact: scale is a power of two
  return static_cast<double>((sums[0] + sums[1]) + (sums[2] + sums[3])) * (back * back);
}

template <typename T>
IGF_DEVICE double squares(const Packed<T> (&packed)[kVectors]) {
  // Below kSmall, squares lost under 2^-126 would show (32 of them are 4e-37); above kLarge, one may have overflown.
  constexpr double kSmall = 1e-29, kLarge = 3e38;
  const double sum = squares_scaled(packed, 1.0f);
  if (sum > kSmall && sum < kLarge) return sum;
  // Elements from 1.4e-45 to 3.2e-15, or above 3e18: scaled, their squares are in f32's range.
  return squares_scaled(packed, sum <= kSmall ? 0x1p100f : 0x1p-70f);
}

// The thread's share of a chunk of `size` elements.
template <typename T>
IGF_DEVICE double chunk_squares(const T* data, int size) {
  const int vectors = reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0 ? size / kVectorLanes<T> : 0;
  double total = 0.0;
  for (int first = thread_x(); first < vectors; first += kThreads * kVectors) {
    Packed<T> packed[kVectors] = {};  // zeros add nothing
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = first + v * kThreads;  // [0, vectors)
      if (vector < vectors) packed[v] = load(reinterpret_cast<const Packed<T>*>(data) + vector);
    }
    total += squares(packed);
  }
#pragma unroll 1
  for (int i = vectors * kVectorLanes<T> + thread_x(); i < size; i += kThreads) {
    const double x = to_float(load(data + i));
    total += x * x;
  }
  return total;
}

IGF_DEVICE double row_squares(const GradNormRow& row, int64_t first) {
  const int64_t rest = row.size - first;
  const int size = static_cast<int>(rest < kGradNormChunk ? rest : kGradNormChunk);
  switch (row.element) {
    case Element::kBfloat16: return chunk_squares(static_cast<const device::bfloat16*>(row.data) + first, size);
    case Element::kHalf: return chunk_squares(static_cast<const device::half*>(row.data) + first, size);
    default: return chunk_squares(static_cast<const float*>(row.data) + first, size);
  }
}

IGF_KERNEL(kThreads, kBlocksPerSm)
grad_norm_chunks(GradNormCuda a) {
  IGF_SHARED_ARRAY(double, scratch, kThreads / kWarp);
  RowFinder finder(a.table);
  for (int64_t chunk = block_x(); chunk < a.table.chunks; chunk += grid_x()) {
    const GradNormRow row = load_row(a.table, finder.find(chunk));
    double sums[1] = {row_squares(row, (chunk - row.first_chunk) * kGradNormChunk)};
    row_sum<kThreads>(sums, scratch);
    if (thread_x() == 0) store(a.partials + chunk, sums[0]);
  }
  if (!is_last_block(a.arrivals, static_cast<uint32_t>(grid_x()))) return;
  double totals[1] = {0.0};
  for (int64_t first = thread_x(); first < a.table.chunks; first += kThreads * kAhead) {
    double partials[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t chunk = first + i * kThreads;  // [0, table.chunks)
      partials[i] = chunk < a.table.chunks ? load_shared_by_blocks(a.partials + chunk) : 0.0;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) totals[0] += partials[i];
  }
  row_sum<kThreads>(totals, scratch);
  if (thread_x() == 0) store(a.norm, static_cast<float>(sqrt(totals[0])));
}

}  // namespace

void grad_norm_cuda(GradNormCuda a, const std::vector<int64_t>& words, int64_t* table_memory,
                    const DeviceContext& context) {
  write_table("grad_norm_table", words, table_memory, context);
  a.arrivals = context.arrivals;
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * kBlocksPerSm;
  // One block at least: nothing but empty tensors has a norm too.
  const LaunchShape shape{std::clamp<int64_t>(a.table.chunks, 1, resident), 1, kThreads, 1};
  launch("grad_norm", grad_norm_chunks, shape, context, a);
}

}  // namespace igf
