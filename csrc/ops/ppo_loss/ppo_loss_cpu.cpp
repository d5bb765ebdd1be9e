// ppo_loss on the CPU: blocks that stay in the first-level cache, their terms summed in fixed lanes.
#include "ops/ppo_loss/ppo_loss.h"

#include <algorithm>
#include <array>
#include <vector>

#include "cpu/clones.h"
#include "cpu/lane_sum.h"
#include "cpu/parallel.h"
#include "device/math.h"

namespace igf {
namespace {

constexpr int64_t kBlock = 1024;

using Sums = std::array<double, kPpoSums>;

// One block's terms, a row for each sum that the main loop makes, and its gradients where no output takes them.
struct Terms {
  alignas(64) float policy[kBlock], value[kBlock], policy_clipped[kBlock], value_clipped[kBlock], approx_kl[kBlock],
      ratio[kBlock], kl[kBlock], grad_logprobs[kBlock], grad_values[kBlock];
};

IGF_INLINE float clip(float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// Policy and value terms with their gradients. Unequal pointers never overlap, which the compiler cannot know.
IGF_INLINE void policy_and_value(const PpoLossArguments& a, int64_t start, int64_t count, Terms& t, float* dlogprobs,
                                 float* dvalues) {
  const float *logprobs = a.logprobs + start, *old_logprobs = a.old_logprobs + start;
  const float *advantages = a.advantages + start, *returns = a.returns + start;
  const float *values = a.values + start, *old_values = a.old_values + start;
  const uint8_t* mask = a.mask + start;
  const float low = 1.0f - a.cliprange, high = 1.0f + a.cliprange, reach = a.cliprange_value;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const bool counted = mask[i] != 0;
    const float change = logprobs[i] - old_logprobs[i];
    const float ratio = math::exp(change);
    const float plain = -advantages[i] * ratio, clipped = -advantages[i] * clip(ratio, low, high);
    const bool policy_clipped = clipped > plain;
    const float error = values[i] - returns[i];
    const float bounded_error = clip(values[i], old_values[i] - reach, old_values[i] + reach) - returns[i];
    const float square = error * error, bounded_square = bounded_error * bounded_error;
    const bool value_clipped = bounded_square > square;
    t.policy[i] = counted ? (policy_clipped ? clipped : plain) : 0.0f;
    t.value[i] = counted ? (value_clipped ? bounded_square : square) : 0.0f;
    t.policy_clipped[i] = counted & policy_clipped ? 1.0f : 0.0f;
    t.value_clipped[i] = counted & value_clipped ? 1.0f : 0.0f;
    t.approx_kl[i] = counted ? change * change : 0.0f;
    t.ratio[i] = counted ? ratio : 0.0f;
    dlogprobs[i] = counted & !policy_clipped ? plain : 0.0f;
    dvalues[i] = counted & !value_clipped ? error : 0.0f;
  }
}

// e^d - d - 1 without the cancellation near 0, where the reference has hardly been left.
IGF_INLINE float k3(float d) {
  constexpr float kSeries = 0.5f;  // below it the first term left out is 4e-8 of the sum
  float p = 1.0f / 40320.0f;
  p = p * d + 1.0f / 5040.0f;
  p = p * d + 1.0f / 720.0f;
  p = p * d + 1.0f / 120.0f;
  p = p * d + 1.0f / 24.0f;
  p = p * d + 1.0f / 6.0f;
  p = p * d + 0.5f;
  const float small = p * d * d, large = math::exp(d) - d - 1.0f;
  return (d < kSeries) & (d > -kSeries) ? small : large;
}

IGF_INLINE void reference_kl(const PpoLossArguments& a, int64_t start, int64_t count, Terms& t, float* dlogprobs) {
  const float *logprobs = a.logprobs + start, *ref_logprobs = a.ref_logprobs + start;
  const uint8_t* mask = a.mask + start;
  const float coefficient = static_cast<float>(a.kl_loss_coef);
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    const float d = ref_logprobs[i] - logprobs[i];
    const float kl = k3(d);
    const bool counted = mask[i] != 0;
    t.kl[i] = counted ? kl : 0.0f;
    dlogprobs[i] -= counted ? coefficient * (d + kl) : 0.0f;  // d + kl is e^d - 1
  }
}

// From the gradients of the terms to those of the loss.
IGF_INLINE void finish_gradients(const PpoLossArguments& a, int64_t count, float* dlogprobs, float* dvalues) {
  const double logprob_factor = 1.0 / a.denominator, value_factor = a.vf_coef / a.denominator;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    dlogprobs[i] = static_cast<float>(dlogprobs[i] * logprob_factor);
    dvalues[i] = static_cast<float>(dvalues[i] * value_factor);
  }
}

IGF_CLONES void block_sums(const PpoLossArguments& a, int64_t start, int64_t count, Terms& t, Sums& sums) {
  float* dlogprobs = a.grad_logprobs == nullptr ? t.grad_logprobs : a.grad_logprobs + start;
  float* dvalues = a.grad_values == nullptr ? t.grad_values : a.grad_values + start;
  policy_and_value(a, start, count, t, dlogprobs, dvalues);
  const auto sum_of = [=](const float* terms) { return lane_sum<float>(count, [=](int64_t i) { return terms[i]; }); };
  sums[kPolicy] = sum_of(t.policy);
  sums[kValue] = 0.5 * sum_of(t.value);
  sums[kPolicyClipped] = sum_of(t.policy_clipped);
  sums[kValueClipped] = sum_of(t.value_clipped);
  sums[kApproxKl] = 0.5 * sum_of(t.approx_kl);
  sums[kRatio] = sum_of(t.ratio);
  sums[kEntropy] = 0.0;
  sums[kKl] = 0.0;
  if (a.entropy != nullptr) {
    const float* entropy = a.entropy + start;
    const uint8_t* mask = a.mask + start;
    sums[kEntropy] = lane_sum<float>(count, [=](int64_t i) {
      const float nats = entropy[i];  // read before the choice, so that the loop has no branch
      return mask[i] != 0 ? nats : 0.0f;
    });
  }
  if (a.ref_logprobs != nullptr) {
    reference_kl(a, start, count, t, dlogprobs);
    sums[kKl] = sum_of(t.kl);
  }
  if (a.grad_logprobs != nullptr) finish_gradients(a, count, dlogprobs, dvalues);
}

IGF_CLONES void scale(float* gradient, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) gradient[i] *= factor;
}

IGF_CLONES void entropy_gradient(const uint8_t* mask, float* gradient, int64_t count, float slope) {
  for (int64_t i = 0; i < count; ++i) gradient[i] = mask[i] != 0 ? slope : 0.0f;
}

}  // namespace

void ppo_loss_forward(const PpoLossArguments& a) {
  const int64_t blocks = (a.count + kBlock - 1) / kBlock;
  std::vector<Sums> parts(static_cast<size_t>(blocks));
  parallel_for(0, blocks, 4, [&](int64_t first, int64_t last) {
    Terms terms;
    for (int64_t b = first; b < last; ++b) {
      block_sums(a, b * kBlock, std::min(kBlock, a.count - b * kBlock), terms, parts[b]);
    }
  });
  Sums sums{};
  for (const Sums& part : parts) {
    for (int s = 0; s < kPpoSums; ++s) sums[s] += part[s];
  }
  const double total = sums[kPolicy] + a.vf_coef * sums[kValue] - a.entropy_coef * sums[kEntropy] +
                       a.kl_loss_coef * sums[kKl];
  *a.loss = static_cast<float>(total / a.denominator);
  for (int s = 0; s < kPpoSums; ++s) a.stats[s] = static_cast<float>(sums[s] / a.denominator);
}

void ppo_loss_backward(const PpoLossBackward& a) {
  const float dloss = *a.dloss, entropy_slope = dloss / a.denominator * -a.entropy_coef;
  parallel_for(0, a.count, 65536, [&](int64_t first, int64_t last) {
    if (dloss != 1.0f) {
      scale(a.grad_logprobs + first, last - first, dloss);
      scale(a.grad_values + first, last - first, dloss);
    }
    if (a.grad_entropy != nullptr) {
      entropy_gradient(a.mask + first, a.grad_entropy + first, last - first, entropy_slope);
    }
  });
}

}  // namespace igf
