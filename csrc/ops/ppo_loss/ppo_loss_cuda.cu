// The PPO loss on CUDA devices: loss, statistics and gradients in one launch, the loss's own gradient in another.
//
// Work     forward: tiles of 2,048 tokens, one a block at a time; a thread owns two groups of four neighbouring tokens.
//          Eight sums a tile go to memory; the last block adds the tiles in order and writes the loss. Backward: the
//          gradients are complete, so the launch reads one number and leaves when it is 1.
// Memory   forward 25 bytes read a token (4 more for each of entropy and reference) and 8 written, 64 a tile written and
//          read. Backward 0 a token when the loss is where the backward pass begins, else 8 read and 8 written, and 5
//          for the entropy's gradient. Both together 33 bytes a token in the plain case, where a backward pass that
//          always scaled would make it 49. One million tokens: 34.6 MB. Limit: memory bandwidth; 2 x 100 bytes in
//          flight a thread.
// Numbers  a thread's eight tokens are added in f32; threads by a tree, warps and tiles in order, in double. The order
//          depends neither on the number of multiprocessors nor on the alignment. A gradient of the loss other than 1
//          rounds the tokens' gradients once more.
// Limits   pointers off their boundary, and the last group of a ragged end, are moved element by element.
// Source   as in ppo_loss.h.
#include <algorithm>

#include "device/fours.cuh"
#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "device/reductions.cuh"
#include "ops/ppo_loss/ppo_loss.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kGroups = 2;  // of four tokens, of a thread, in a tile
constexpr int64_t kTile = kThreads * kGroups * 4;
constexpr int kBlocksPerMultiprocessor = 3;  // what registers allow
static_assert(kPpoSums == 8 && kWarps == 8, "the reductions below pair eight sums with 32 lanes and eight warps");

IGF_DEVICE float clip(float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// A number in two floats: a product with it is rounded once.
struct Factor {
  float high, low;
};

Factor factor_of(double number) {
  const float high = static_cast<float>(number);
  return {high, static_cast<float>(number - high)};
}

IGF_DEVICE float product(float x, Factor factor) { return fmaf(x, factor.high, x * factor.low); }

// What the kernel is given beside the op's arguments.
struct Plan {
  int64_t tiles;
  Factor logprob;  // 1 / denominator, which makes the gradients of the terms those of the loss ...
  Factor value;    // ... and vf_coef / denominator
  uint32_t* arrivals;
};

// e^d - d - 1 without the cancellation near 0, where the reference has hardly been left.
IGF_DEVICE float k3(float d) {
  constexpr float kSeries = 0.5f;  // below it the first term left out is 4e-8 of the sum
  float p = 1.0f / 40320.0f;
  p = p * d + 1.0f / 5040.0f;
  p = p * d + 1.0f / 720.0f;
  p = p * d + 1.0f / 120.0f;
  p = p * d + 1.0f / 24.0f;
  p = p * d + 1.0f / 6.0f;
  p = p * d + 0.5f;
  const float small = p * d * d;
  const float large = expf(d) - d - 1.0f;
  return d < kSeries && d > -kSeries ? small : large;
}

// A thread's four tokens: adds their terms to the sums and writes their gradients.
IGF_DEVICE void four_tokens(const PpoLossArguments& a, const Plan& plan, const Four& at, float (&sums)[kPpoSums]) {
  float logprobs[4], old_logprobs[4], advantages[4], values[4], old_values[4], returns[4], entropy[4], reference[4];
  bool counted[4];
  load_four_once(logprobs, a.logprobs, at);
  load_four_once(old_logprobs, a.old_logprobs, at);
  load_four_once(advantages, a.advantages, at);
  load_four_once(values, a.values, at);
  load_four_once(old_values, a.old_values, at);
  load_four_once(returns, a.returns, at);
  load_four_flags(counted, a.mask, at);
  if (a.entropy != nullptr) load_four_once(entropy, a.entropy, at);
  if (a.ref_logprobs != nullptr) load_four_once(reference, a.ref_logprobs, at);

  const float low = 1.0f - a.cliprange, high = 1.0f + a.cliprange;
  const float kl_loss_coef = static_cast<float>(a.kl_loss_coef);
  float dlogprobs[4], dvalues[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float change = logprobs[i] - old_logprobs[i];
    const float ratio = expf(change);
    const float plain = -advantages[i] * ratio, clipped = -advantages[i] * clip(ratio, low, high);
    const bool policy_clipped = clipped > plain;
    const float error = values[i] - returns[i];
    const float bounded = clip(values[i], old_values[i] - a.cliprange_value, old_values[i] + a.cliprange_value);
    const float bounded_error = bounded - returns[i];
    const float square = error * error, bounded_square = bounded_error * bounded_error;
    const bool value_clipped = bounded_square > square;
    sums[kPolicy] += counted[i] ? (policy_clipped ? clipped : plain) : 0.0f;
    sums[kValue] += counted[i] ? 0.5f * (value_clipped ? bounded_square : square) : 0.0f;
    sums[kPolicyClipped] += counted[i] && policy_clipped ? 1.0f : 0.0f;
    sums[kValueClipped] += counted[i] && value_clipped ? 1.0f : 0.0f;
    sums[kApproxKl] += counted[i] ? 0.5f * change * change : 0.0f;
    sums[kRatio] += counted[i] ? ratio : 0.0f;
    dlogprobs[i] = policy_clipped ? 0.0f : plain;
    dvalues[i] = counted[i] && !value_clipped ? product(error, plan.value) : 0.0f;
    if (a.entropy != nullptr) sums[kEntropy] += counted[i] ? entropy[i] : 0.0f;
    if (a.ref_logprobs != nullptr) {
      const float d = reference[i] - logprobs[i];
      const float kl = k3(d);
      sums[kKl] += counted[i] ? kl : 0.0f;
      dlogprobs[i] -= kl_loss_coef * (d + kl);  // d + kl is e^d - 1
    }
    dlogprobs[i] = counted[i] ? product(dlogprobs[i], plan.logprob) : 0.0f;
  }
  if (a.grad_logprobs == nullptr) return;
  store_four(a.grad_logprobs, at, dlogprobs);
  store_four(a.grad_values, at, dvalues);
}

// The warp's total of each of eight values: lane l receives that of value l / 4. Each step hands half of the values to
// a partner and keeps the other half, so that 9 shuffles do what 40 would.
IGF_DEVICE double warp_totals(const float (&sums)[kPpoSums]) {
  const int lane = lane_index();
  double values[kPpoSums];
#pragma unroll
  for (int i = 0; i < kPpoSums; ++i) values[i] = static_cast<double>(sums[i]);
#pragma unroll
  for (int half = kPpoSums / 2; half > 0; half /= 2) {
    const bool upper = (lane & (4 * half)) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const double kept = upper ? values[i + half] : values[i];
      const double given = upper ? values[i] : values[i + half];
      values[i] = kept + shuffle_xor(given, 4 * half);
    }
  }
  values[0] += shuffle_xor(values[0], 2);
  return values[0] + shuffle_xor(values[0], 1);
}

// Adds the tiles in double and writes the loss and the statistics; by one whole block.
IGF_DEVICE void finish(const PpoLossArguments& a, int64_t tiles) {
  IGF_SHARED_ARRAY(double, totals, kWarps * kPpoSums);
  constexpr int kRows = kThreads / kPpoSums;  // of partials, that the block reads side by side
  const int sum = thread_x() % kPpoSums;      // the sum that this thread adds
  double total = 0.0;
#pragma unroll 4
  for (int64_t tile = thread_x() / kPpoSums; tile < tiles; tile += kRows) {
    total += load_shared_by_blocks(a.partials + tile * kPpoSums + sum);
  }
  total += shuffle_xor(total, 8);
  total += shuffle_xor(total, 16);
  if (lane_index() < kPpoSums) totals[thread_x() / kWarp * kPpoSums + sum] = total;
  block_barrier();  // every warp's totals are in shared memory
  if (thread_x() >= kWarp) return;
  total = 0.0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += totals[w * kPpoSums + sum];
  double term = 0.0;  // of the loss, by this lane
  switch (lane_index()) {
    case kPolicy: term = total; break;
    case kValue: term = a.vf_coef * total; break;
    case kEntropy: term = -a.entropy_coef * total; break;
    case kKl: term = a.kl_loss_coef * total; break;
    default: break;  // statistics, and lanes beyond the sums
  }
  const double loss = warp_sum(term);
  if (lane_index() < kPpoSums) store(a.stats + sum, static_cast<float>(total / a.denominator));
  if (lane_index() == 0) store(a.loss, static_cast<float>(loss / a.denominator));
}

IGF_KERNEL(kThreads)
ppo_loss_tokens(PpoLossArguments a, Plan plan) {
  IGF_SHARED_ARRAY(double, scratch, 2 * kWarps * kPpoSums);
  int side = 0;  // of scratch: a tile writes one while the tile before may still be read from the other
  for (int64_t tile = block_x(); tile < plan.tiles; tile += grid_x(), side ^= 1) {
    float sums[kPpoSums] = {};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int64_t first = tile * kTile + (g * kThreads + thread_x()) * 4;
      four_tokens(a, plan, four_at(first, a.count, a.aligned), sums);
    }
    double* warps = scratch + side * kWarps * kPpoSums;
    const double total = warp_totals(sums);
    if (lane_index() % 4 == 0) warps[thread_x() / kWarp * kPpoSums + lane_index() / 4] = total;
    block_barrier();  // this tile's sums are in `warps`; the other side has been read, by all who come here
    if (thread_x() < kPpoSums) {
      double block_total = 0.0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) block_total += warps[w * kPpoSums + thread_x()];
      store(a.partials + tile * kPpoSums + thread_x(), block_total);
    }
  }
  if (is_last_block(plan.arrivals, static_cast<uint32_t>(grid_x()))) finish(a, plan.tiles);
}

IGF_KERNEL(kThreads)
ppo_loss_scale(PpoLossBackward a) {
  const float dloss = load(a.dloss);
  const float entropy_slope = dloss / a.denominator * -a.entropy_coef;
  if (dloss == 1.0f && a.grad_entropy == nullptr) return;
  for (int64_t group = block_x() * kThreads + thread_x(); group * 4 < a.count; group += grid_x() * kThreads) {
    const Four at = four_at(group * 4, a.count, a.aligned);
    if (dloss != 1.0f) {
      float slopes[4];
      for (float* gradient : {a.grad_logprobs, a.grad_values}) {
        load_four(slopes, gradient, at);
#pragma unroll
        for (int i = 0; i < 4; ++i) slopes[i] *= dloss;
        store_four(gradient, at, slopes);
      }
    }
    if (a.grad_entropy == nullptr) continue;
    bool counted[4];
    float slopes[4];
    load_four_flags(counted, a.mask, at);
#pragma unroll
    for (int i = 0; i < 4; ++i) slopes[i] = counted[i] ? entropy_slope : 0.0f;
    store_four(a.grad_entropy, at, slopes);
  }
}

}  // namespace

int64_t ppo_loss_tiles(int64_t count) { return ceil_div(count, kTile); }

void ppo_loss_forward_cuda(const PpoLossArguments& a, const DeviceContext& context) {
  const Plan plan{ppo_loss_tiles(a.count), factor_of(1.0 / a.denominator), factor_of(a.vf_coef / a.denominator),
                  context.arrivals};
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * kBlocksPerMultiprocessor;
  // One block even without a tile: it writes the loss and the statistics of nothing.
  launch("ppo_loss_tokens", &ppo_loss_tokens, {std::clamp<int64_t>(plan.tiles, 1, resident), 1, kThreads, 1}, context,
         a, plan);
}

void ppo_loss_backward_cuda(const PpoLossBackward& a, const DeviceContext& context) {
  if (a.count == 0) return;
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * kBlocksPerMultiprocessor;
  launch("ppo_loss_scale", &ppo_loss_scale, {std::min(ceil_div(a.count, 4 * kThreads), resident), 1, kThreads, 1},
         context, a);
}

}  // namespace igf
