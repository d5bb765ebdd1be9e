// token_logprobs: statistics of a chunk of rows of logits, and their gradient in place, on CUDA devices.
//
// Work     forward: a row a block, one pass, one barrier; an exponential and four multiply-adds a logit, of which the
//          entropy costs one. Backward: no reduction is left, a block takes a piece of a row; one exponential a logit.
// Memory   R rows of V logits of e bytes, P = 16 ceil(eV / 16): forward reads R (P + e + 8) and writes 16 R, backward
//          reads R P, 36 bytes a block, and writes the rows up to their stride. Limit for 16,384 tokens at V = 50,257 in
//          bf16: forward 1.65 GB, 0.38 ms at 4.3 TB/s, beside a product of 1.6 ms at D = 768. Not measured.
// Numbers  device/online_softmax.cuh. entropy = log(sum) - weighted / sum: neither term is negative, nothing cancels.
// Limits   rows stand on 16 bytes, so that what follows a row up to the stride can be read, and backward is made 0.
// Source   token_logprobs.h; the sums in one pass: Milakov, Gimelshein 2018, arXiv:1805.02867, algorithm 3.
#include "device/launch.cuh"
#include "device/online_softmax.cuh"
#include "ops/token_logprobs/token_logprobs.h"

namespace igf {
namespace {

using namespace device;

// Above this many vectors a row is shared by the larger block.
constexpr int64_t kVectorsOfSmallBlock = 2048;
constexpr int kSmallBlock = 128;
constexpr int kLargeBlock = 512;
constexpr int kGradientThreads = 128;
constexpr int kGradientVectors = kGradientThreads * kVectorsAtOnce;  // of a row, one block's

template <typename T, int kThreads>
IGF_KERNEL(kThreads)
token_logprob_rows(TokenLogprobChunk a) {
  IGF_SHARED_ARRAY(float, scratch, kMergeScratch<kThreads>);
  const int64_t row = block_x();  // [0, count)
  const T* z = static_cast<const T*>(a.logits) + row * a.stride;
  const float scale = a.inverse_temperature / kNatsPerUnit<T>;
  const int64_t token = thread_x() == 0 ? load(a.tokens + row) : 0;  // waited for after the scan
  SoftmaxRow sums = scan_row<T, kThreads, true>(
      a.vocabulary, scale, [&](int64_t v) { return load_once(reinterpret_cast<const Packed<T>*>(z) + v); },
      [](int64_t, const Packed<T>&) {});
  block_merge<T, kThreads, true>(sums, scale, scratch);
  if (thread_x() != 0) return;
  if (token < 0 || token >= a.vocabulary) trap();
  const float at_token = (to_float(load(z + token)) - sums.top) * a.inverse_temperature;
  const float log_sum = logf(sums.sum);
  store(a.logprobs + row, at_token - log_sum);
  store(a.entropy + row, log_sum - sums.weighted * kNatsPerUnit<T> / sums.sum);
  store(a.statistics + 2 * row, sums.top);
  store(a.statistics + 2 * row + 1, sums.sum);
}

// What the gradient of a row's logits takes: p (at + slope u) at each, and `at_token` more at the token.
struct GradientRow {
  float scale;
  float base;
  float inverse_sum;
  float at;
  float slope;
  float at_token;
  int64_t token;
};

// Of the caller's row, from shared memory, where thread 0 puts it together.
template <typename T>
IGF_DEVICE GradientRow gradient_row(const TokenLogprobGradientChunk& a, int64_t row) {
  IGF_SHARED_ARRAY(GradientRow, shared, 1);
  if (thread_x() == 0) {
    const int64_t place = load(a.rows + row);  // [0, N)
    GradientRow g;
    g.token = load(a.tokens + place);
    if (g.token < 0 || g.token >= a.vocabulary) trap();
    const float factor = a.inverse_temperature * a.gradient_scale;
    const float from_logprob = load(a.dlogprobs + place) * factor;
    const float from_entropy = load(a.dentropy + place) * factor;
    const float sum = load(a.statistics + 2 * place + 1);
    g.scale = a.inverse_temperature / kNatsPerUnit<T>;
    g.base = base_of(load(a.statistics + 2 * place));
    g.inverse_sum = 1.0f / sum;
    // -p (from_logprob + from_entropy (log p + entropy)), log p = u kNatsPerUnit - log(sum)
    g.at = -(from_logprob + from_entropy * (load(a.entropy + place) - logf(sum)));
    g.slope = -from_entropy * kNatsPerUnit<T>;
    g.at_token = from_logprob;
    shared[0] = g;
  }
  block_barrier();  // the row's numbers are in shared memory
  return shared[0];
}

// One vector of logits becomes gradient. Lanes from `valid` on are beyond the row's end and become 0; `at` is the token's
// place in the vector, outside [0, lanes) where it is elsewhere.
template <typename T>
IGF_DEVICE Packed<T> gradient_of(const Packed<T>& packed, const GradientRow& row, int64_t valid, int64_t at) {
  constexpr int kLanes = kVectorLanes<T>;
  float g[kLanes];
  unpack<T>(g, packed);
#pragma unroll
  for (int i = 0; i < kLanes; ++i) {
    const float u = (g[i] - row.base) * row.scale;
    g[i] = power<T>(u) * row.inverse_sum * fmaf(row.slope, u, row.at);
  }
  if (0 <= at && at < kLanes) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) g[i] += i == at ? row.at_token : 0.0f;
  }
  if (valid < kLanes) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) g[i] = i < valid ? g[i] : 0.0f;
  }
  return pack<T>(g);
}

template <typename T>
IGF_KERNEL(kGradientThreads)
token_logprob_gradient_rows(TokenLogprobGradientChunk a) {
  constexpr int kLanes = kVectorLanes<T>;
  const int64_t row = block_x();  // [0, count)
  const int64_t first = block_y() * kGradientVectors + thread_x();  // this thread's are first + k kGradientThreads
  Packed<T>* z = reinterpret_cast<Packed<T>*>(static_cast<T*>(a.logits) + row * a.stride);
  Packed<T> packed[kVectorsAtOnce];
#pragma unroll
  for (int k = 0; k < kVectorsAtOnce; ++k) {
    const int64_t v = first + k * kGradientThreads;
    packed[k] = v * kLanes < a.vocabulary ? load(z + v) : Packed<T>();
  }
  const GradientRow numbers = gradient_row<T>(a, row);  // while the logits are under way
#pragma unroll
  for (int k = 0; k < kVectorsAtOnce; ++k) {
    const int64_t v = first + k * kGradientThreads;
    if (v * kLanes >= a.stride) continue;
    store(z + v, gradient_of<T>(packed[k], numbers, a.vocabulary - v * kLanes, numbers.token - v * kLanes));
  }
}

template <typename T>
void forward(const TokenLogprobChunk& a, const DeviceContext& context) {
  if (ceil_div(a.vocabulary, kVectorLanes<T>) <= kVectorsOfSmallBlock) {
    launch("token_logprob_rows", &token_logprob_rows<T, kSmallBlock>, {a.count, 1, kSmallBlock, 1}, context, a);
  } else {
    launch("token_logprob_rows", &token_logprob_rows<T, kLargeBlock>, {a.count, 1, kLargeBlock, 1}, context, a);
  }
}

template <typename T>
void backward(const TokenLogprobGradientChunk& a, const DeviceContext& context) {
  const int64_t pieces = ceil_div(a.stride / kVectorLanes<T>, kGradientVectors);
  launch("token_logprob_gradient_rows", &token_logprob_gradient_rows<T>, {a.count, pieces, kGradientThreads, 1},
         context, a);
}

}  // namespace

void token_logprob_rows_cuda(const TokenLogprobChunk& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return forward<float>(a, context);
    case Element::kBfloat16: return forward<device::bfloat16>(a, context);
    case Element::kHalf: return forward<device::half>(a, context);
  }
}

void token_logprob_gradient_rows_cuda(const TokenLogprobGradientChunk& a, const DeviceContext& context) {
  switch (a.element) {
    case Element::kFloat: return backward<float>(a, context);
    case Element::kBfloat16: return backward<device::bfloat16>(a, context);
    case Element::kHalf: return backward<device::half>(a, context);
  }
}

}  // namespace igf
