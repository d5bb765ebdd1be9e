// sample_token on the CPU. Passes over a row run on tiles of 64 tokens; the maximum of each tile lets later passes skip
// most of a row, and thresholds are found without sorting it.
#include "ops/sample_token/sample_token.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/clones.h"
#include "cpu/lane_sum.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"

namespace igf {
namespace {

using sampling::Controls;
using sampling::kInfinity;
using sampling::kTile;
using sampling::Stream;

constexpr int kLanes = sampling::kTileBlocks;
constexpr int64_t kBlock = 1024;  // tokens whose weights are added in float before double takes over

// What one thread needs for a row.
struct Scratch {
  explicit Scratch(int64_t vocab)
      : vocab(vocab),
        tiles((vocab + kTile - 1) / kTile),
        scores(new float[tiles * kTile]),
        weights(new float[tiles * kTile]),
        values(new float[tiles * kTile]),
        tokens(new int32_t[tiles * kTile]),
        largest(new float[tiles]) {}

  int64_t vocab, tiles;
  std::unique_ptr<float[]> scores, weights;  // s and exp(s - largest s); -inf and 0 beyond the vocabulary
  std::unique_ptr<float[]> values;           // candidates for a threshold, later the listed scores
  std::unique_ptr<int32_t[]> tokens;         // whose scores `values` holds
  std::unique_ptr<float[]> largest;          // score of each tile
};

struct Best {
  double key;
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
    for (int64_t i = 0; i < count; ++i) scores[i] /= temperature;
  }
  return bad == 0;
}

// scores = logits / temperature; false when a logit is NaN or +inf.
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
    row.scores[token] = sampling::penalised(s, penalty) / temperature;
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
    for (int64_t i = begin; i < end; ++i) weights[i] = sampling::weight_of(scores[i], largest);
    const float* block = weights + begin;
    total += lane_sum<float>(end - begin, [=](int64_t i) { return block[i]; });
  }
  return total;
}

// The mass of tokens with these weights.
IGF_CLONES uint64_t mass_of_all(const float* weights, int64_t count) {
  uint64_t mass = 0;
  for (int64_t i = 0; i < count; ++i) mass += sampling::mass_of(weights[i]);
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

// Lists the tokens with score >= least_score and score - largest >= least_gap, in their order; returns how many.
int64_t gather(Scratch& row, float largest, float least_score, float least_gap) {
  int64_t count = 0;
  for (int64_t t = 0; t < row.tiles; ++t) {
    if (row.largest[t] < least_score || row.largest[t] - largest < least_gap) continue;
    const int64_t end = std::min(row.vocab, (t + 1) * kTile);
    for (int64_t v = t * kTile; v < end; ++v) {
      const float score = row.scores[v];
      row.values[count] = score;
      row.tokens[count] = static_cast<int32_t>(v);
      count += (score >= least_score) & (score - largest >= least_gap);
    }
  }
  return count;
}

// Keeps of the listed tokens those with score >= least_score and score - largest >= least_gap; returns how many.
int64_t drop_lighter(Scratch& row, int64_t listed, float largest, float least_score, float least_gap) {
  int64_t count = 0;
  for (int64_t i = 0; i < listed; ++i) {
    const float score = row.values[i];
    row.values[count] = score;
    row.tokens[count] = row.tokens[i];
    count += (score >= least_score) & (score - largest >= least_gap);
  }
  return count;
}

// The least score that top-p keeps among the listed: the least one with a mass above it that is less than the target.
// The bin it lies in is found from the bins' masses; only the tokens in that bin are sorted.
float nucleus(const Scratch& row, int64_t listed, float largest, uint64_t target) {
  constexpr int kBins = 2048;
  std::vector<uint64_t> masses(kBins, 0);
  for (int64_t i = 0; i < listed; ++i) {
    masses[sampling::bin_of<kBins>(row.values[i], largest)] += sampling::mass_of(row.weights[row.tokens[i]]);
  }
  uint64_t above = 0;
  uint32_t bin = 0;
  while (above + masses[bin] < target) above += masses[bin++];
  std::vector<std::pair<float, uint32_t>> inside;  // score, mass
  for (int64_t i = 0; i < listed; ++i) {
    if (sampling::bin_of<kBins>(row.values[i], largest) == bin) {
      inside.emplace_back(row.values[i], sampling::mass_of(row.weights[row.tokens[i]]));
    }
  }
  std::sort(inside.begin(), inside.end(), std::greater<>());
  float least = inside[0].first;
  for (const auto& [score, mass] : inside) {
    if (score < least && above >= target) break;  // not for an equal of the last one
    least = score;
    above += mass;
  }
  return least;
}

// Lets one token run.
IGF_INLINE void run(Best& best, float score, uint32_t word, int64_t token) {
  const double key = sampling::race_key(score, word);
  if (key > best.key || (key == best.key && token < best.token)) best = {key, token};
}

// A token can only win with a weight above u times this. A little lower, so that rounding never shuts out a winner.
IGF_INLINE float gate(const Best& best, float largest) {
  return static_cast<float>(std::exp(best.key - static_cast<double>(largest)) * 0.9999);
}

IGF_CLONES Best race_all(const float* scores, const float* weights, int64_t tiles, float largest, const Stream& stream,
                         Best best) {
  alignas(64) uint32_t words[kTile];
  float bar = gate(best, largest);
  for (int64_t t = 0; t < tiles; ++t) {
    const float* w = weights + t * kTile;
    for (int l = 0; l < kLanes; ++l) {
      const philox::Block block = sampling::block_at(stream, static_cast<uint32_t>(t * kLanes + l));
      words[l] = block.w0;
      words[l + 16] = block.w1;
      words[l + 32] = block.w2;
      words[l + 48] = block.w3;
    }
    int contenders = 0;
    for (int i = 0; i < kTile; ++i) contenders |= w[i] > philox::unit(words[i]) * bar;
    if (contenders == 0) continue;
    for (int i = 0; i < kTile; ++i) {
      if (w[i] > philox::unit(words[i]) * bar) run(best, scores[t * kTile + i], words[i], t * kTile + i);
    }
    bar = gate(best, largest);
  }
  return best;
}

IGF_CLONES Best race_listed(const float* scores, const float* weights, const int32_t* tokens, int64_t count,
                            float largest, const Stream& stream, Best best) {
  alignas(64) uint32_t words[kLanes];
  float bar = gate(best, largest);
  for (int64_t begin = 0; begin < count; begin += kLanes) {
    const int width = static_cast<int>(std::min<int64_t>(kLanes, count - begin));
    for (int l = 0; l < width; ++l) {
      const uint32_t token = static_cast<uint32_t>(tokens[begin + l]);
      const philox::Block block = sampling::block_at(stream, sampling::block_of(token));
      const uint32_t which = sampling::word_of(token);
      words[l] = which == 0 ? block.w0 : which == 1 ? block.w1 : which == 2 ? block.w2 : block.w3;
    }
    for (int l = 0; l < width; ++l) {
      const int32_t token = tokens[begin + l];
      if (weights[token] > philox::unit(words[l]) * bar) {
        run(best, scores[token], words[l], token);
        bar = gate(best, largest);
      }
    }
  }
  return best;
}

// What steps 3 to 5 keep: the tokens with score >= least_score and score - largest >= least_gap. The first `listed`
// entries of row.tokens hold all of them, and maybe lighter ones; -1: nothing is cut away and nothing listed.
struct Kept {
  int64_t listed = -1;
  float least_score = -kInfinity;
  float least_gap = -kInfinity;
};

Kept cut(Scratch& row, const Controls& controls, float largest, double total) {
  const bool by_rank = controls.top_k > 0 && controls.top_k < row.vocab, by_mass = controls.top_p < 1.0f;
  Kept kept{-1, -kInfinity, controls.least_gap};
  if (!by_rank && !by_mass && kept.least_gap == -kInfinity) return kept;
  if (by_rank) kept.least_score = kth_largest(row, controls.top_k);
  float listed_gap = kept.least_gap;
  if (by_mass) {
    listed_gap = by_rank ? -kInfinity : sampling::lightest_gap(controls.top_p, static_cast<float>(total), row.vocab);
  }
  kept.listed = gather(row, largest, kept.least_score, listed_gap);
  if (by_mass) {
    uint64_t mass = 0;
    if (by_rank) {
      for (int64_t i = 0; i < kept.listed; ++i) mass += sampling::mass_of(row.weights[row.tokens[i]]);
    } else {
      mass = mass_of_all(row.weights.get(), row.vocab);
    }
    kept.least_score = nucleus(row, kept.listed, largest, sampling::target_mass(controls.top_p, mass));
  }
  return kept;
}

IGF_CLONES void zero_dropped(const float* scores, float* weights, int64_t count, float largest, const Kept& kept) {
  const float least_score = kept.least_score, least_gap = kept.least_gap;
  for (int64_t i = 0; i < count; ++i) {
    const float score = scores[i], weight = weights[i];
    weights[i] = (score >= least_score) & (score - largest >= least_gap) ? weight : 0.0f;
  }
}

int64_t best_token(const Scratch& row, float largest) {
  const int64_t tile = std::find(row.largest.get(), row.largest.get() + row.tiles, largest) - row.largest.get();
  return std::find(row.scores.get() + tile * kTile, row.scores.get() + row.vocab, largest) - row.scores.get();
}

int64_t draw(Scratch& row, const Controls& controls, const Stream& stream, float largest, double total) {
  const int64_t favourite = best_token(row, largest);
  if (controls.greedy) return favourite;
  const Kept kept = cut(row, controls, largest, total);
  // The favourite runs first: most of the others then fail at the gate.
  const philox::Block block = sampling::block_at(stream, sampling::block_of(static_cast<uint32_t>(favourite)));
  const uint32_t words[4] = {block.w0, block.w1, block.w2, block.w3};
  Best best{-std::numeric_limits<double>::infinity(), favourite};
  run(best, largest, words[sampling::word_of(static_cast<uint32_t>(favourite))], favourite);
  // A listed token costs about five times one among all, whose blocks of random numbers serve four tokens each.
  if (kept.listed >= 0 && kept.listed < row.vocab / 5) {
    const int64_t count = drop_lighter(row, kept.listed, largest, kept.least_score, kept.least_gap);
    return race_listed(row.scores.get(), row.weights.get(), row.tokens.get(), count, largest, stream, best).token;
  }
  if (kept.listed >= 0) zero_dropped(row.scores.get(), row.weights.get(), row.tiles * kTile, largest, kept);
  return race_all(row.scores.get(), row.weights.get(), row.tiles, largest, stream, best).token;
}

template <typename T>
void sample_row(const SampleTokenArguments& a, int64_t r, Scratch& row) {
  a.tokens[r] = -1;
  a.logprobs[r] = std::numeric_limits<float>::quiet_NaN();
  float parameters[kParameters];
  std::copy_n(a.parameters + r * a.parameter_stride, kParameters, parameters);
  Controls controls;
  if (!sampling::read_controls(parameters, controls)) return;
  const T* logits = static_cast<const T*>(a.logits) + r * a.vocab;
  if (!scale(logits, row.scores.get(), a.vocab, controls.temperature)) return;
  if (a.history != nullptr && !penalise(logits, a.history + r * a.history_length, a.history_length, controls.penalty,
                                        controls.temperature, row)) {
    return;
  }
  std::fill(row.scores.get() + a.vocab, row.scores.get() + row.tiles * kTile, -kInfinity);
  const float largest = tile_maxima(row.scores.get(), row.tiles, row.largest.get());
  if (!std::isfinite(largest)) return;
  const double total = exponentials(row.scores.get(), largest, row.weights.get(), row.tiles * kTile);
  const int64_t token = draw(row, controls, sampling::stream_of(a.seeds[r], a.positions[r]), largest, total);
  a.tokens[r] = token;
  a.logprobs[r] = static_cast<float>((static_cast<double>(row.scores[token]) - largest) - std::log(total));
}

}  // namespace

template <typename T>
void sample_token_forward(const SampleTokenArguments& arguments) {
  parallel_for(0, arguments.rows, 1 + 4096 / arguments.vocab, [&](int64_t first, int64_t last) {
    Scratch row(arguments.vocab);
    for (int64_t r = first; r < last; ++r) sample_row<T>(arguments, r, row);
  });
}

template void sample_token_forward<float>(const SampleTokenArguments&);
template void sample_token_forward<bfloat16>(const SampleTokenArguments&);
template void sample_token_forward<half>(const SampleTokenArguments&);

}  // namespace igf
