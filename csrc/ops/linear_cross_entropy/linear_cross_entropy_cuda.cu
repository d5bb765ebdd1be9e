// linear_cross_entropy: losses and gradients of a chunk of rows of logits, in place, on CUDA devices.
//
// Work     a row a block: one pass for the largest logit and the sum of exponentials, one barrier, one pass that writes
//          the gradient. Between the two the row waits in shared memory where two rows fit a multiprocessor (V = 50,257
//          in 16 bits: 98 KiB, of 227 on sm_90 and sm_100), else it is read again (163 KiB on sm_80, 99 on sm_86, sm_89
//          and sm_120), from the second-level cache where that holds the rows under way, two or three a multiprocessor.
//          Two exponentials a logit with gradient, one without. The last block of the last chunk adds up the losses.
// Memory   R rows of V logits of e bytes, P = 16 ceil(eV / 16), S = e stride: reads R (P + e + 8), writes 4 R, and with
//          gradient writes R S; where the row does not fit, reads R P more; once for all chunks, reads 4 bytes a row. Limit: for 16,384 tokens at V = 50,257 in bf16 3.3 GB
//          with gradient, 0.77 ms at 4.3 TB/s. Not measured.
// Numbers  device/online_softmax.cuh; the gradient at the target is p - 1 in f32, rounded once. Losses in f32, added in
//          double in a fixed order.
// Limits   rows stand on 16 bytes, so that what follows a row up to the stride can be read, and is made 0.
// Source   linear_cross_entropy.h; the sum in one pass: Milakov, Gimelshein 2018, arXiv:1805.02867, algorithm 3.
#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "device/online_softmax.cuh"
#include "ops/linear_cross_entropy/linear_cross_entropy.h"

namespace igf {
namespace {

using namespace device;

enum class Gradient { kNone, kFromShared, kReadAgain };

// Above this many vectors a row is shared by the larger block.
constexpr int64_t kVectorsOfSmallBlock = 2048;
constexpr int kSmallBlock = 128;
constexpr int kLargeBlock = 512;

// One vector of logits becomes gradient. Lanes from `valid` on are beyond the row's end and become 0; `at` is the target's
// place in the vector, outside [0, lanes) where it is elsewhere.
template <typename T>
IGF_DEVICE Packed<T> gradient_of(const Packed<T>& packed, float base, float factor, int64_t valid, int64_t at,
                                 float gradient_scale) {
  constexpr int kLanes = kVectorLanes<T>;
  constexpr float kScale = 1.0f / kNatsPerUnit<T>;
  float g[kLanes];
  unpack<T>(g, packed);
#pragma unroll
  for (int i = 0; i < kLanes; ++i) g[i] = power<T>((g[i] - base) * kScale) * factor;
  if (0 <= at && at < kLanes) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) g[i] -= i == at ? gradient_scale : 0.0f;
  }
  if (valid < kLanes) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) g[i] = i < valid ? g[i] : 0.0f;
  }
  return pack<T>(g);
}

// Adds up all losses in every thread: thread t takes the losses t, t + kThreads, ...
template <int kThreads>
IGF_DEVICE void add_losses(const CrossEntropyChunk& a) {
  IGF_SHARED_ARRAY(double, partial, kThreads / kWarp);
  double total[1] = {0.0};
  for (int64_t i = thread_x(); i < a.all; i += kThreads) total[0] += load_shared_by_blocks(a.losses + i);
  row_sum<kThreads>(total, partial);
  if (thread_x() == 0) store(a.loss, static_cast<float>(total[0]));
}

template <typename T, int kThreads, Gradient kGradient>
IGF_KERNEL(kThreads)
cross_entropy_rows(CrossEntropyChunk a, uint32_t* arrivals) {
  constexpr float kScale = 1.0f / kNatsPerUnit<T>;
  constexpr int kLanes = kVectorLanes<T>;
  IGF_SHARED_ARRAY(float, scratch, kMergeScratch<kThreads>);
  IGF_DYNAMIC_SHARED(shared);
  const int64_t row = block_x();  // [0, count)
  const Packed<T>* z = reinterpret_cast<const Packed<T>*>(static_cast<const T*>(a.logits) + row * a.stride);
  Packed<T>* kept = reinterpret_cast<Packed<T>*>(shared);
  const int64_t target = load(a.targets + row);  // waited for after the scan

  SoftmaxRow sums = scan_row<T, kThreads, false>(
      a.vocabulary, kScale, [&](int64_t v) { return load(z + v); },
      [&](int64_t v, const Packed<T>& packed) {
        if constexpr (kGradient == Gradient::kFromShared) store(kept + v, packed);
      });
  if (target < 0 || target >= a.vocabulary) trap();
  // Read before the barrier in block_merge, behind which its owner overwrites it.
  const float at_target = thread_x() == 0 ? to_float(load(reinterpret_cast<const T*>(z) + target)) : 0.0f;
  block_merge<T, kThreads, false>(sums, kScale, scratch);
  if (thread_x() == 0) store(a.losses + a.first + row, logf(sums.sum) - (at_target - sums.top));

  if constexpr (kGradient != Gradient::kNone) {
    // A thread meets the vectors again that it has read, so that shared memory needs no barrier.
    Packed<T>* g = reinterpret_cast<Packed<T>*>(static_cast<T*>(a.logits) + row * a.stride);
    const Packed<T>* source = kGradient == Gradient::kFromShared ? kept : z;
    const int64_t full = a.vocabulary / kLanes;
    const float base = base_of(sums.top);
    const float factor = a.gradient_scale / sums.sum;
    int64_t v = thread_x();  // [0, vectors of a row and of what follows it)
    for (; v + (kVectorsAtOnce - 1) * kThreads < full; v += kVectorsAtOnce * kThreads) {
      Packed<T> packed[kVectorsAtOnce];
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) packed[k] = load(source + v + k * kThreads);
#pragma unroll
      for (int k = 0; k < kVectorsAtOnce; ++k) {
        const int64_t at = target - (v + k * kThreads) * kLanes;
        store(g + v + k * kThreads, gradient_of<T>(packed[k], base, factor, kLanes, at, a.gradient_scale));
      }
    }
    for (; v * kLanes < a.stride; v += kThreads) {
      const int64_t valid = a.vocabulary - v * kLanes;
      const Packed<T> packed = valid > 0 ? load(source + v) : Packed<T>();
      store(g + v, gradient_of<T>(packed, base, factor, valid, target - v * kLanes, a.gradient_scale));
    }
  }

  if (a.loss == nullptr) return;  // the same in every thread
  if (is_last_block(arrivals, static_cast<uint32_t>(grid_x()))) add_losses<kThreads>(a);
}

template <typename T, int kThreads>
void start(const CrossEntropyChunk& a, const DeviceContext& context) {
  constexpr int64_t kBesides = 4096;  // alignment, static arrays, what the device keeps for itself
  const int64_t row_bytes = ceil_div(a.vocabulary, kVectorLanes<T>) * kVectorBytes;
  if (a.gradient_scale == 0.0f) {
    launch("cross_entropy_rows", &cross_entropy_rows<T, kThreads, Gradient::kNone>, {a.count, 1, kThreads, 1}, context,
           a, context.arrivals);
  } else if (2 * (row_bytes + kBesides) <= context.shared_bytes) {
    launch("cross_entropy_rows", &cross_entropy_rows<T, kThreads, Gradient::kFromShared>,
           {a.count, 1, kThreads, 1, row_bytes}, context, a, context.arrivals);
  } else {
    launch("cross_entropy_rows", &cross_entropy_rows<T, kThreads, Gradient::kReadAgain>, {a.count, 1, kThreads, 1},
           context, a, context.arrivals);
  }
}

template <typename T>
void start(const CrossEntropyChunk& a, const DeviceContext& context) {
  if (ceil_div(a.vocabulary, kVectorLanes<T>) <= kVectorsOfSmallBlock) {
    start<T, kSmallBlock>(a, context);
  } else {
    start<T, kLargeBlock>(a, context);
  }
}

}  // namespace

void cross_entropy_rows_cuda(const CrossEntropyChunk& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return start<float>(a, context);
    case Element::kBfloat16: return start<device::bfloat16>(a, context);
    case Element::kHalf: return start<device::half>(a, context);
  }
}

}  // namespace igf
