// gae on the CPU: one row after the other, from its end. Vectors across rows were tried: turning tiles of rows costs what
// they save, and rows a power of two apart push each other out of the cache.
#include "ops/gae/gae.h"

#include <algorithm>

#include "cpu/clones.h"
#include "cpu/parallel.h"

namespace igf {
namespace {

// Cloned for its fused multiply-adds, which are what a step waits for.
IGF_CLONES void one_row(const GaeArguments& a, int64_t row) {
  const int64_t start = row * a.columns;
  const float *rewards = a.rewards + start, *values = a.values + start;
  const uint8_t* mask = a.mask + start;
  float *advantages = a.advantages + start, *returns = a.returns + start;
  const float gamma = a.gamma, decay = a.gamma * a.lambda;
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

}  // namespace

void gae_forward(const GaeArguments& arguments) {
  // Fewer than 8,192 tokens take less time than waking a thread.
  const int64_t grain = 1 + 8192 / std::max<int64_t>(1, arguments.columns);
  parallel_for(0, arguments.rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) one_row(arguments, row);
  });
}

}  // namespace igf
