// gae on the CPU: one row after the other, from its end. Vectors across rows were tried: turning tiles of rows costs
// what they save, and rows a power of two apart push each other out of the cache.
#include "ops/gae/gae.h"

#include <algorithm>

#include "cpu/clones.h"
#include "cpu/parallel.h"

namespace igf {
namespace {

// Cloned for its fused multiply-adds, which are what a step waits for.
IGF_CLONES void one_row(const GaeArguments& a, int64_t row) {
  const int64_t start = row * a.columns;
  const float *rewards = (a.rewards != nullptr ? a.rewards : a.shaped) + start, *values = a.values + start;
  const uint8_t* mask = a.mask + start;
  float *advantages = a.advantages + start, *returns = a.returns + start;
  const float gamma = a.gamma, decay = a.decay;
  float next_value = 0.0f, next_advantage = 0.0f;
  for (int64_t t = a.columns - 1; t >= 0; --t) {
    const bool counted = mask[t] != 0;
    const float value = values[t];
    const float delta = rewards[t] + gamma * next_value - value;
    const float advantage = delta + decay * next_advantage;
    advantages[t] = counted ? advantage : 0.0f;
    returns[t] = counted ? advantage + value : 0.0f;
    next_value = counted ? value : next_value;
    next_advantage = counted ? advantage : next_advantage;
  }
}

// kl and rewards of a row, in the order of operations that separate tensors would take: a product, then a sum.
IGF_CLONES void penalties(const GaeArguments& a, int64_t row) {
  const int64_t start = row * a.columns;
  const float *logprobs = a.logprobs + start, *ref_logprobs = a.ref_logprobs + start;
  const uint8_t* mask = a.mask + start;
  float *kl = a.kl + start, *shaped = a.shaped + start;
  const float factor = -a.kl_coef;
#pragma GCC ivdep
  for (int64_t t = 0; t < a.columns; ++t) {
    const float apart = logprobs[t] - ref_logprobs[t];  // read before the choice, so that the loop has no branch
    kl[t] = mask[t] != 0 ? apart : 0.0f;
    shaped[t] = mask[t] != 0 ? apart * factor : 0.0f;
  }
}

void shape_row(const GaeArguments& a, int64_t row) {
  penalties(a, row);
  int64_t last = a.columns - 1;
  while (last >= 0 && a.mask[row * a.columns + last] == 0) --last;
  if (last >= 0) a.shaped[row * a.columns + last] += a.scores[row];
}

}  // namespace

void gae_forward(const GaeArguments& arguments) {
  // Fewer than 8,192 tokens take less time than waking a thread.
  const int64_t grain = 1 + 8192 / std::max<int64_t>(1, arguments.columns);
  parallel_for(0, arguments.rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      if (arguments.rewards == nullptr) shape_row(arguments, row);
      one_row(arguments, row);
    }
  });
}

}  // namespace igf
