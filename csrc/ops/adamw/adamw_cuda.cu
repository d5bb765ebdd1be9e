// adamw on CUDA devices: one launch over all tensors and their state.
//
// Work     a table of the tensors in chunks of 2048 elements (device/tensor_table.h), carried to the device by a small
//          launch for each 233 tensors; blocks that stay take every grid-th chunk. A thread holds four quads of
//          elements: 3 or 4 loads of 16 bytes and one of 4 gradients for each, all under way before the first is used.
//          No barrier between the first chunk and the last.
// Memory   bytes an element, in every dtype: gradient 2 (f32: 4), weights, m and v 12 read and 12 written, reduced
//          weights 2 written (f32: 0) = 28; with the average 8 more. Bound by memory: some 40 instructions a 28 bytes.
//          At 4.3 TB/s that is 0.81 ms for 124 M elements, 10.1 ms for 1558 M.
// Numbers  the scalars of the step are derived by every block for itself in double, from the step count and the norm in
//          device memory: no host waits, and a CUDA graph may record the launch (lr and the other numbers stay as
//          recorded). The last block advances the count, when all have read it. Elements in f32, true division and
//          root; no sums, so the bits do not depend on the order.
// Limits   a tensor of which a part does not stand on 16 bytes (16-bit gradients and params: on 8) is worked on one
//          element at a time. At most 2^31 chunks. Speed: not measured.
// Source   the equations are in adamw.h.
#include <algorithm>
#include <type_traits>

#include "device/dtype.cuh"
#include "device/last_block.cuh"
#include "device/tensor_table.cuh"
#include "ops/adamw/adamw.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 128;
constexpr int kLanes = 4;                                                  // elements of a quad: 16 bytes of f32
constexpr int kQuads = static_cast<int>(kAdamWChunk) / kLanes / kThreads;  // of a thread in a whole chunk

// 128 registers a thread leave room for four, 168 for three.
template <bool kAverage>
constexpr int kBlocksPerSm = kAverage ? 3 : 4;

using Quad = Vector<float, kLanes>;

// Four elements, or one, as they stand in memory: 16-bit gradients are widened when they are used, not when they come.
template <typename T, int kCount>
struct Elements {
  Vector<T, kCount> grad;
  Vector<float, kCount> weights;
  Vector<float, kCount> exp_avg;
  Vector<float, kCount> exp_avg_sq;
  Vector<float, kCount> ema;
};

template <bool kAverage, typename T, int kCount>
IGF_DEVICE void update(Elements<T, kCount>& e, const AdamWStep& s, float keep) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float g = to_float(e.grad.lanes[i]) * s.grad_factor;
    const float m = s.beta1 * e.exp_avg.lanes[i] + s.one_minus_beta1 * g;
    const float v = s.beta2 * e.exp_avg_sq.lanes[i] + s.one_minus_beta2 * (g * g);
    const float w = keep * e.weights.lanes[i] - s.step_size * m / (sqrtf(v) * s.denominator_factor + s.eps);
    e.exp_avg.lanes[i] = m;
    e.exp_avg_sq.lanes[i] = v;
    e.weights.lanes[i] = w;
    if constexpr (kAverage) e.ema.lanes[i] += s.one_minus_ema_decay * (w - e.ema.lanes[i]);
  }
}

// The pointers of a chunk, and the places that all of them share.
template <typename T, bool kAverage>
struct Chunk {
  const T* grad;
  float* weights;
  float* exp_avg;
  float* exp_avg_sq;
  float* ema;
  T* rounded;
  int size;

  IGF_DEVICE Chunk(const AdamWRow& row, int64_t first)
      : grad(static_cast<const T*>(row.grad) + first),
        weights(row.weights + first),
        exp_avg(row.exp_avg + first),
        exp_avg_sq(row.exp_avg_sq + first),
        ema(kAverage ? row.ema + first : nullptr),
        rounded(std::is_same_v<T, float> ? nullptr : static_cast<T*>(row.rounded) + first),
        size(static_cast<int>(row.size - first < kAdamWChunk ? row.size - first : kAdamWChunk)) {}

  // Quads of state are 16 bytes, quads of T are 8 or 16.
  IGF_DEVICE bool in_quads() const {
    const uintptr_t state = reinterpret_cast<uintptr_t>(weights) | reinterpret_cast<uintptr_t>(exp_avg) |
                            reinterpret_cast<uintptr_t>(exp_avg_sq) | reinterpret_cast<uintptr_t>(ema);
    const uintptr_t params = reinterpret_cast<uintptr_t>(grad) | reinterpret_cast<uintptr_t>(rounded);
    return state % sizeof(Quad) == 0 && params % sizeof(Vector<T, kLanes>) == 0;
  }

  // kCount = 4: place is a quad's number; kCount = 1: an element's.
  template <int kCount>
  IGF_DEVICE void read(Elements<T, kCount>& e, int place IGF_SITE_PARAMETER) const {
    using Floats = Vector<float, kCount>;
    e.grad = load_once(reinterpret_cast<const Vector<T, kCount>*>(grad) + place IGF_SITE);
    e.weights = load_once(reinterpret_cast<const Floats*>(weights) + place IGF_SITE);
    e.exp_avg = load_once(reinterpret_cast<const Floats*>(exp_avg) + place IGF_SITE);
    e.exp_avg_sq = load_once(reinterpret_cast<const Floats*>(exp_avg_sq) + place IGF_SITE);
    if constexpr (kAverage) e.ema = load_once(reinterpret_cast<const Floats*>(ema) + place IGF_SITE);
  }

  template <int kCount>
  IGF_DEVICE void write(const Elements<T, kCount>& e, int place IGF_SITE_PARAMETER) const {
    using Floats = Vector<float, kCount>;
    store_once(reinterpret_cast<Floats*>(weights) + place, e.weights IGF_SITE);
    store_once(reinterpret_cast<Floats*>(exp_avg) + place, e.exp_avg IGF_SITE);
    store_once(reinterpret_cast<Floats*>(exp_avg_sq) + place, e.exp_avg_sq IGF_SITE);
    if constexpr (kAverage) store_once(reinterpret_cast<Floats*>(ema) + place, e.ema IGF_SITE);
    if constexpr (!std::is_same_v<T, float>) {
      Vector<T, kCount> narrow;
#pragma unroll
      for (int i = 0; i < kCount; ++i) narrow.lanes[i] = from_float<T>(e.weights.lanes[i]);
      // The next forward pass reads these first.
      store(reinterpret_cast<Vector<T, kCount>*>(rounded) + place, narrow IGF_SITE);
    }
  }
};

template <typename T, bool kAverage>
IGF_DEVICE void update_chunk(const Chunk<T, kAverage>& chunk, const AdamWStep& step, float keep) {
  const int quads = chunk.in_quads() ? chunk.size / kLanes : 0;
  Elements<T, kLanes> elements[kQuads];
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int quad = thread_x() + q * kThreads;  // [0, quads)
    if (quad < quads) chunk.read(elements[q], quad);
  }
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int quad = thread_x() + q * kThreads;
    if (quad >= quads) continue;
    update<kAverage>(elements[q], step, keep);
    chunk.write(elements[q], quad);
  }
  // The last elements of a tensor, or all of one that does not stand on 16 bytes.
#pragma unroll 1
  for (int i = quads * kLanes + thread_x(); i < chunk.size; i += kThreads) {
    Elements<T, 1> element;
    chunk.read(element, i);
    update<kAverage>(element, step, keep);
    chunk.write(element, i);
  }
}

template <typename T, bool kAverage>
IGF_KERNEL(kThreads, kBlocksPerSm<kAverage>)
adamw_update_chunks(AdamWCuda a) {
  IGF_SHARED_ARRAY(AdamWStep, shared_step, 1);
  const float norm = a.grad_norm == nullptr ? 0.0f : load(a.grad_norm);
  const bool applied = adamw_norm_is_finite(a.numbers, norm);
  if (block_x() == 0 && thread_x() == 0) store(a.applied, applied);
  if (!applied) return;  // every thread of every block

  if (thread_x() == 0) shared_step[0] = adamw_step(a.numbers, load(a.step) + 1, norm);
  block_barrier();  // the step's scalars are there
  const AdamWStep& step = shared_step[0];  // left there: nine registers of each thread for the loads
  RowFinder finder(a.table);
  for (int64_t chunk = block_x(); chunk < a.table.chunks; chunk += grid_x()) {
    const AdamWRow row = load_row(a.table, finder.find(chunk));
    const int64_t first = (chunk - row.first_chunk) * kAdamWChunk;  // [0, row.size)
    update_chunk(Chunk<T, kAverage>(row, first), step, row.keep);
  }
  // All blocks have read the count.
  if (is_last_block(a.arrivals, static_cast<uint32_t>(grid_x())) && thread_x() == 0) store(a.step, load(a.step) + 1);
}

template <typename T, bool kAverage>
void launch_update(const AdamWCuda& a, const DeviceContext& context) {
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * kBlocksPerSm<kAverage>;
  // One block at least: the count advances without any tensors too.
  const LaunchShape shape{std::clamp<int64_t>(a.table.chunks, 1, resident), 1, kThreads, 1};
  launch("adamw", adamw_update_chunks<T, kAverage>, shape, context, a);
}

template <typename T>
void launch_update(const AdamWCuda& a, bool with_ema, const DeviceContext& context) {
  with_ema ? launch_update<T, true>(a, context) : launch_update<T, false>(a, context);
}

}  // namespace

void adamw_cuda(AdamWCuda a, const std::vector<int64_t>& words, int64_t* table_memory, Element element, bool with_ema,
                const DeviceContext& context) {
  write_table("adamw_table", words, table_memory, context);
  a.arrivals = context.arrivals;
  switch (element) {
    case Element::kFloat: return launch_update<float>(a, with_ema, context);
    case Element::kBfloat16: return launch_update<device::bfloat16>(a, with_ema, context);
    case Element::kHalf: return launch_update<device::half>(a, with_ema, context);
  }
}

}  // namespace igf
