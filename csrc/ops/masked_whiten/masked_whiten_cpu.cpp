// masked_whiten on the CPU: moments of each block, merged in order, then one pass that writes.
#include "ops/masked_whiten/masked_whiten.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/clones.h"
#include "cpu/lane_sum.h"
#include "cpu/parallel.h"

namespace igf {
namespace {

constexpr int64_t kBlock = 2048;  // its two arrays below take 16 kB of the first-level cache

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: sum of (x - mean)^2
};

IGF_CLONES Moments block_moments(const float* x, const uint8_t* mask, int64_t count) {
  alignas(64) float kept[kBlock], weight[kBlock];
  int32_t counted = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = x[i];  // read before the choice, so that the loop has no branch
    kept[i] = mask[i] != 0 ? value : 0.0f;
    weight[i] = mask[i] != 0 ? 1.0f : 0.0f;
    counted += mask[i];
  }
  if (counted == 0) return {};
  const float *values = kept, *weights = weight;
  const double sum = lane_sum<double>(count, [=](int64_t i) { return static_cast<double>(values[i]); });
  const double mean = sum / counted;
  const double squares = lane_sum<double>(count, [=](int64_t i) {
    const double apart = values[i] - mean;
    return apart * apart * weights[i];
  });
  return {static_cast<double>(counted), mean, squares};
}

Moments merge(const Moments& a, const Moments& b) {
  if (a.count == 0) return b;
  if (b.count == 0) return a;
  const double count = a.count + b.count, apart = b.mean - a.mean;
  return {count, a.mean + apart * (b.count / count), a.squares + b.squares + apart * apart * (a.count * b.count / count)};
}

// The mean in two floats: subtracting both loses nothing that float input holds.
struct Scale {
  float mean_high, mean_low, factor, shift;
};

IGF_CLONES void whiten_range(const float* x, const uint8_t* mask, float* y, int64_t count, const Scale& scale) {
  const Scale s = scale;
  for (int64_t i = 0; i < count; ++i) {
    const float whitened = ((x[i] - s.mean_high) - s.mean_low) * s.factor + s.shift;
    y[i] = mask[i] != 0 ? whitened : 0.0f;
  }
}

}  // namespace

void masked_whiten_forward(const MaskedWhitenArguments& a) {
  const int64_t blocks = (a.count + kBlock - 1) / kBlock;
  std::vector<Moments> parts(static_cast<size_t>(blocks));
  const auto length = [&](int64_t block) { return std::min(kBlock, a.count - block * kBlock); };
  parallel_for(0, blocks, 4, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) parts[b] = block_moments(a.x + b * kBlock, a.mask + b * kBlock, length(b));
  });
  Moments all;
  for (const Moments& part : parts) all = merge(all, part);
  const double variance = all.count > 0 ? all.squares / all.count : 0.0;
  const float high = static_cast<float>(all.mean);
  const Scale scale{high, static_cast<float>(all.mean - high), static_cast<float>(1.0 / std::sqrt(variance + a.eps)),
                    a.shift_mean ? 0.0f : high};
  parallel_for(0, blocks, 4, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kBlock, end = std::min(last * kBlock, a.count);
    whiten_range(a.x + begin, a.mask + begin, a.y + begin, end - begin, scale);
  });
}

}  // namespace igf
