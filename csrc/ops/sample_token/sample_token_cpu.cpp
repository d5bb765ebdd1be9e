// sample_token on the CPU. Passes over a row run on tiles of 64 tokens; the maximum of each tile lets later passes skip
// most of a row, and thresholds are found without sorting it.
#include "ops/sample_token/sample_token.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "cpu/clones.h"
#include "cpu/lane_sum.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "device/math.h"
#include "device/philox.h"

namespace igf {
namespace {

constexpr int kTile = 64;
constexpr int kLanes = 16;
constexpr int64_t kBlock = 1024;  // tokens whose masses are added in float before double takes over
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What one thread needs for a row.
struct Scratch {
  explicit Scratch(int64_t vocab)
      : vocab(vocab),
        tiles((vocab + kTile - 1) / kTile),
        scores(new float[tiles * kTile]),
        weights(new float[tiles * kTile]),
        values(new float[tiles * kTile]),
        tokens(new int32_t[tiles * kTile]),
        largest(new float[tiles]),
        heaviest(new float[tiles]) {}

  int64_t vocab, tiles;
  std::unique_ptr<float[]> scores, weights;    // s and exp(s - largest s); -inf and 0 beyond the vocabulary
  std::unique_ptr<float[]> values;             // candidates for a threshold, later the kept weights
  std::unique_ptr<int32_t[]> tokens;           // whose weights `values` holds
  std::unique_ptr<float[]> largest, heaviest;  // of each tile: greatest score, greatest weight
};

// Where in key and counter a row's numbers come from.
struct Stream {
  philox::Key key;
  uint32_t position_low, position_high;
};

struct Best {
  float score;
  int64_t token;
};

template <typename T>
IGF_INLINE bool scale_body(const T* logits, float* scores, int64_t count, float temperature) {
  int bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float s = static_cast<float>(logits[i]);
    scores[i] = s;
    bad |= !(s < kInfinity);
  }
  if (temperature != 1.0f) {  // a division by 1 costs as much as any other
    for (int64_t i = 0; i < count; ++i) {
      const float s = scores[i] / temperature;
      scores[i] = s;
      bad |= !(s < kInfinity);
    }
  }
  return bad == 0;
}

// scores = logits / temperature; false when one is NaN or +inf.
IGF_CLONES bool scale(const float* logits, float* scores, int64_t count, float temperature) {
  return scale_body(logits, scores, count, temperature);
}
IGF_CLONES bool scale(const bfloat16* logits, float* scores, int64_t count, float temperature) {
  return scale_body(logits, scores, count, temperature);
}
IGF_CLONES bool scale(const half* logits, float* scores, int64_t count, float temperature) {
  return scale_body(logits, scores, count, temperature);
}

// The history's tokens again, penalised: from the logits, so that a token seen twice is penalised once.
template <typename T>
bool penalise(const T* logits, const int64_t* history, int64_t length, float penalty, float temperature, Scratch& row) {
  for (int64_t i = 0; i < length; ++i) {
    const int64_t token = history[i];
    if (token >= row.vocab) return false;
    if (token < 0) continue;
    const float s = static_cast<float>(logits[token]);
    row.scores[token] = (s > 0.0f ? s / penalty : s * penalty) / temperature;
  }
  return true;
}

IGF_INLINE float tile_maximum(const float* values) {
  alignas(64) float lanes[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const float a = values[l] > values[l + 16] ? values[l] : values[l + 16];
    const float b = values[l + 32] > values[l + 48] ? values[l + 32] : values[l + 48];
    lanes[l] = a > b ? a : b;
  }
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] = lanes[l] > lanes[l + half] ? lanes[l] : lanes[l + half];
  }
  return lanes[0];
}

// The maximum of each tile; returns the maximum of all.
IGF_CLONES float tile_maxima(const float* values, int64_t tiles, float* maxima) {
  float maximum = -kInfinity;
  for (int64_t t = 0; t < tiles; ++t) {
    maxima[t] = tile_maximum(values + t * kTile);
    maximum = maxima[t] > maximum ? maxima[t] : maximum;
  }
  return maximum;
}

// weights = exp(scores - largest); returns their sum.
IGF_CLONES double exponentials(const float* scores, float largest, float* weights, int64_t count) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    for (int64_t i = begin; i < end; ++i) weights[i] = math::exp(scores[i] - largest);
    const float* block = weights + begin;
    total += lane_sum<float>(end - begin, [=](int64_t i) { return block[i]; });
  }
  return total;
}

// The sum of those weights that are above the threshold.
IGF_CLONES double mass_above(const float* weights, int64_t count, float threshold) {
  double mass = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const float* block = weights + begin;
    mass += lane_sum<float>(std::min(kBlock, count - begin), [=](int64_t i) {
      const float weight = block[i];
      return weight > threshold ? weight : 0.0f;
    });
  }
  return mass;
}

// The k-th largest score. At least k tokens reach the k-th largest tile maximum, so only tiles that reach it are read.
float kth_largest(Scratch& row, int64_t k) {
  float* candidates = row.values.get();
  float bound = -kInfinity;
  if (k <= row.tiles) {
    std::copy_n(row.largest.get(), row.tiles, candidates);
    std::nth_element(candidates, candidates + (k - 1), candidates + row.tiles, std::greater<float>());
    bound = candidates[k - 1];
  }
  int64_t count = 0;
  for (int64_t t = 0; t < row.tiles; ++t) {
    if (row.largest[t] < bound) continue;
    const int64_t end = std::min(row.vocab, (t + 1) * kTile);
    for (int64_t v = t * kTile; v < end; ++v) {
      candidates[count] = row.scores[v];
      count += row.scores[v] >= bound;
    }
  }
  std::nth_element(candidates, candidates + (k - 1), candidates + count, std::greater<float>());
  return candidates[k - 1];
}

// Lists the tokens with score >= least_score and weight >= least_weight, in their order; returns how many.
int64_t gather(Scratch& row, float least_score, float least_weight) {
  int64_t count = 0;
  for (int64_t t = 0; t < row.tiles; ++t) {
    if (row.largest[t] < least_score || row.heaviest[t] < least_weight) continue;
    const int64_t end = std::min(row.vocab, (t + 1) * kTile);
    for (int64_t v = t * kTile; v < end; ++v) {
      row.values[count] = row.weights[v];
      row.tokens[count] = static_cast<int32_t>(v);
      count += (row.scores[v] >= least_score) & (row.weights[v] >= least_weight);
    }
  }
  return count;
}

// Keeps of the listed tokens those with weight >= least_weight; returns how many.
int64_t drop_lighter(Scratch& row, int64_t listed, float least_weight) {
  int64_t count = 0;
  for (int64_t i = 0; i < listed; ++i) {
    const float weight = row.values[i];
    row.values[count] = weight;
    row.tokens[count] = row.tokens[i];
    count += weight >= least_weight;
  }
  return count;
}

// The least weight that top-p keeps: the least t with mass_above(t) < target, which is the weight of a token. Found by
// bisection over the bit patterns between `below`, known to be too small, and 1, the best token's weight, always kept.
float nucleus(const float* weights, int64_t count, double target, float below) {
  uint32_t low = bits_from_float(below), high = bits_from_float(1.0f);
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (mass_above(weights, count, float_from_bits(middle)) < target ? high : low) = middle;
  }
  return float_from_bits(high);
}

IGF_INLINE uint32_t block_of(uint32_t token) { return token / kTile * kLanes + token % kLanes; }

IGF_INLINE philox::Block block_at(const Stream& stream, uint32_t index) {
  return philox::draw({index, stream.position_low, stream.position_high, philox::kSampling}, stream.key);
}

// Lets one token run.
IGF_INLINE void run(Best& best, float weight, uint32_t word, int64_t token) {
  const float score = weight / math::log1p(philox::unit(word) / philox::unit_complement(word));
  if (score > best.score || (score == best.score && token < best.token)) best = {score, token};
}

// The gate: E >= u, so a token can only win with a weight above u times the best score. A little lower, so that rounding
// never shuts out a winner.
IGF_INLINE float gate(const Best& best) { return best.score * 0.9999f; }

IGF_CLONES Best race_all(const float* weights, int64_t tiles, const Stream& stream, Best best) {
  alignas(64) uint32_t words[kTile];
  float bar = gate(best);
  for (int64_t t = 0; t < tiles; ++t) {
    const float* w = weights + t * kTile;
    for (int l = 0; l < kLanes; ++l) {
      const philox::Block block = block_at(stream, static_cast<uint32_t>(t * kLanes + l));
      words[l] = block.w0;
      words[l + 16] = block.w1;
      words[l + 32] = block.w2;
      words[l + 48] = block.w3;
    }
    int contenders = 0;
    for (int i = 0; i < kTile; ++i) contenders |= w[i] > philox::unit(words[i]) * bar;
    if (contenders == 0) continue;
    for (int i = 0; i < kTile; ++i) {
      if (w[i] > philox::unit(words[i]) * bar) run(best, w[i], words[i], t * kTile + i);
    }
    bar = gate(best);
  }
  return best;
}

IGF_CLONES Best race_listed(const float* weights, const int32_t* tokens, int64_t count, const Stream& stream, Best best) {
  alignas(64) uint32_t words[kLanes];
  for (int64_t begin = 0; begin < count; begin += kLanes) {
    const int width = static_cast<int>(std::min<int64_t>(kLanes, count - begin));
    for (int l = 0; l < width; ++l) {
      const uint32_t token = static_cast<uint32_t>(tokens[begin + l]);
      const philox::Block block = block_at(stream, block_of(token));
      const uint32_t which = token / kLanes % 4;
      words[l] = which == 0 ? block.w0 : which == 1 ? block.w1 : which == 2 ? block.w2 : block.w3;
    }
    for (int l = 0; l < width; ++l) {
      const float weight = weights[begin + l];
      if (weight > philox::unit(words[l]) * gate(best)) run(best, weight, words[l], tokens[begin + l]);
    }
  }
  return best;
}

struct Parameters {
  float temperature, top_p, min_p, penalty;
  int64_t top_k;
};

// False when a parameter is out of its range; NaN always is.
bool read(const float* p, Parameters& out) {
  const auto within = [](float x, float low, float high) { return x >= low && x <= high; };
  const float most = std::numeric_limits<float>::max();
  if (!within(p[kTemperature], 0.0f, most) || !within(p[kTopK], 0.0f, most) || !within(p[kTopP], 0.0f, 1.0f) ||
      !within(p[kMinP], 0.0f, 1.0f) || !within(p[kRepetitionPenalty], 0.0f, most) || p[kRepetitionPenalty] == 0.0f) {
    return false;
  }
  const float top_k = std::min(p[kTopK], 0x1p30f);  // more than any vocabulary, and an integer
  out = {p[kTemperature], p[kTopP], p[kMinP], p[kRepetitionPenalty], static_cast<int64_t>(top_k)};
  return true;
}

// What steps 3 to 5 keep: the tokens with score >= least_score and weight >= least_weight. The first `listed` entries of
// row.values and row.tokens hold all of them, and maybe lighter ones; -1: nothing is cut away and nothing listed.
struct Kept {
  int64_t listed = -1;
  float least_score = -kInfinity;
  float least_weight = 0.0f;
};

Kept cut(Scratch& row, const Parameters& p, double total) {
  const bool by_rank = p.top_k > 0 && p.top_k < row.vocab, by_mass = p.top_p < 1.0f;
  Kept kept;
  if (!by_rank && !by_mass && p.min_p == 0.0f) return kept;
  tile_maxima(row.weights.get(), row.tiles, row.heaviest.get());
  float below = 0.0f;
  if (by_rank) {
    kept.least_score = kth_largest(row, p.top_k);
  } else if (by_mass) {
    // All tokens lighter than this weigh less than 1 - top_p together, so each of them is cut.
    below = static_cast<float>(0.999 * (1.0 - p.top_p) * total / static_cast<double>(row.vocab));
  }
  kept.listed = gather(row, kept.least_score, by_mass ? below : p.min_p);
  kept.least_weight = p.min_p;
  if (by_mass) {
    const double mass = by_rank ? mass_above(row.values.get(), kept.listed, 0.0f) : total;
    kept.least_weight = std::max(p.min_p, nucleus(row.values.get(), kept.listed, p.top_p * mass, below));
  }
  return kept;
}

IGF_CLONES void zero_dropped(const float* scores, float* weights, int64_t count, const Kept& kept) {
  const float least_score = kept.least_score, least_weight = kept.least_weight;
  for (int64_t i = 0; i < count; ++i) {
    const float weight = weights[i];
    weights[i] = (scores[i] >= least_score) & (weight >= least_weight) ? weight : 0.0f;
  }
}

int64_t best_token(const Scratch& row, float largest) {
  const int64_t tile = std::find(row.largest.get(), row.largest.get() + row.tiles, largest) - row.largest.get();
  return std::find(row.scores.get() + tile * kTile, row.scores.get() + row.vocab, largest) - row.scores.get();
}

int64_t draw(Scratch& row, const Parameters& p, const Stream& stream, int64_t favourite, double total) {
  if (p.temperature == 0.0f) return favourite;
  const Kept kept = cut(row, p, total);
  // The favourite runs first: most of the others then fail at the gate.
  const philox::Block block = block_at(stream, block_of(static_cast<uint32_t>(favourite)));
  const uint32_t words[4] = {block.w0, block.w1, block.w2, block.w3};
  Best best{0.0f, favourite};
  run(best, 1.0f, words[favourite / kLanes % 4], favourite);
  // A listed token costs about five times one among all, whose blocks of random numbers serve four tokens each.
  if (kept.listed >= 0 && kept.listed < row.vocab / 5) {
    const int64_t count = drop_lighter(row, kept.listed, kept.least_weight);
    return race_listed(row.values.get(), row.tokens.get(), count, stream, best).token;
  }
  if (kept.listed >= 0) zero_dropped(row.scores.get(), row.weights.get(), row.tiles * kTile, kept);
  return race_all(row.weights.get(), row.tiles, stream, best).token;
}

template <typename T>
void sample_row(const SampleTokenArguments<T>& a, int64_t r, Scratch& row) {
  a.tokens[r] = -1;
  a.logprobs[r] = std::numeric_limits<float>::quiet_NaN();
  Parameters p;
  if (!read(a.parameters + r * a.parameter_stride, p)) return;
  const float temperature = p.temperature == 0.0f ? 1.0f : p.temperature;
  const T* logits = a.logits + r * a.vocab;
  if (!scale(logits, row.scores.get(), a.vocab, temperature)) return;
  if (a.history != nullptr &&
      !penalise(logits, a.history + r * a.history_length, a.history_length, p.penalty, temperature, row)) {
    return;
  }
  std::fill(row.scores.get() + a.vocab, row.scores.get() + row.tiles * kTile, -kInfinity);
  const float largest = tile_maxima(row.scores.get(), row.tiles, row.largest.get());
  if (!std::isfinite(largest)) return;
  const double total = exponentials(row.scores.get(), largest, row.weights.get(), row.tiles * kTile);
  const Stream stream{philox::key_of(a.seeds[r]), static_cast<uint32_t>(a.positions[r]),
                      static_cast<uint32_t>(static_cast<uint64_t>(a.positions[r]) >> 32)};
  const int64_t token = draw(row, p, stream, best_token(row, largest), total);
  a.tokens[r] = token;
  a.logprobs[r] = static_cast<float>((static_cast<double>(row.scores[token]) - largest) - std::log(total));
}

}  // namespace

template <typename T>
void sample_token_forward(const SampleTokenArguments<T>& arguments) {
  parallel_for(0, arguments.rows, 1 + 4096 / arguments.vocab, [&](int64_t first, int64_t last) {
    Scratch row(arguments.vocab);
    for (int64_t r = first; r < last; ++r) sample_row(arguments, r, row);
  });
}

template void sample_token_forward<float>(const SampleTokenArguments<float>&);
template void sample_token_forward<bfloat16>(const SampleTokenArguments<bfloat16>&);
template void sample_token_forward<half>(const SampleTokenArguments<half>&);

}  // namespace igf
