// Draws the next token of each row from its logits.
//
//   1. repetition penalty r, once for each token of the history: s = s / r if s > 0 else s * r   Keskar 2019, 1909.05858
//   2. s = s / temperature (temperature 0: the largest s wins, and 1 is used for the log-probability)
//   3. top-k: keep s >= the k-th largest s                                                       Fan 2018, 1805.04833
//   4. top-p: keep a token while the mass above it is < top_p of the mass kept by 3, the best one always
//                                                                                            Holtzman 2020, 1904.09751
//   5. min-p: keep s - largest s >= log min_p                                                    Nguyen 2024, 2407.01082
//   token = argmax over the kept tokens of s_v - log E_v,  E_v = -log(1 - u_v) = log(1 + u_v / (1 - u_v)): the argmax of
//           exp(s_v) / E_v, an exponential race; lowest of equals
//   logprob = s_token - log sum over all v of exp(s_v)
// Tokens tied with the last one kept are kept too.
//
// u_v = philox::unit of a word of the block drawn with the row's seed as key at the counter
//   (v / 64 * 16 + v % 16, position's low half, its high half, philox::kSampling), word v / 16 % 4:
// a block serves four tokens, sixteen apart, so that a vector and a warp read scores that are neighbours.
//
// The same draw everywhere: whatever a choice hangs on is one of the functions below, whose operations are rounded alike
// on every machine, and no choice hangs on the order of a sum:
//   * scores are a quotient, or a quotient or product and a quotient, rounded as IEEE 754 says;
//   * masses (step 4) are whole numbers of 2^-30, added as integers: any order gives the same sum;
//   * a token's place in the race is computed from its own score and word alone, in fused arithmetic, and compared as
//     double; what decides which tokens are worth computing it for (a bound, approximate) never shuts out a winner.
// The log-probability hangs on no choice and is computed as each machine does best.
//
// Shapes: logits [rows, vocab] f32, bf16 or f16; seeds, positions, tokens [rows] int64; logprobs [rows] f32; parameters
// [rows or 1, kParameters] f32; history [rows, history_length] int64, negative = padding.
// A row without meaning (a logit that is NaN or +inf, a largest s that is not finite, a history token >= vocab, a
// parameter out of its range) gives token -1 and logprob NaN.
#pragma once

#include <cstdint>

#include "device/context.h"
#include "device/math.h"
#include "device/philox.h"

namespace igf {

enum SampleParameter { kTemperature, kTopK, kTopP, kMinP, kRepetitionPenalty, kParameters };

struct SampleTokenArguments {
  const void* logits;
  const int64_t* seeds;
  const int64_t* positions;
  const float* parameters;   // null: all rows share shared_parameters
  int64_t parameter_stride;  // kParameters, or 0 when all rows share them
  const int64_t* history;    // null: none
  int64_t history_length;
  int64_t* tokens;
  float* logprobs;
  int64_t rows;
  int64_t vocab;
  Element element;
  float shared_parameters[kParameters];
};

// On the CPU. T: float, bfloat16, half, as the element says.
template <typename T>
void sample_token_forward(const SampleTokenArguments& arguments);

namespace sampling {

constexpr float kInfinity = math::kInfinity;
constexpr int kTile = 64;       // tokens whose random numbers come from kTileBlocks blocks
constexpr int kTileBlocks = 16;
constexpr float kMassUnit = 0x1p-30f;

// A row's parameters, checked.
struct Controls {
  float temperature;  // 1 when greedy
  float penalty;
  float top_p;
  float least_gap;  // log min_p
  int64_t top_k;    // 0 keeps all
  bool greedy;
};

// False when a parameter is out of its range; NaN always is.
IGF_INLINE bool read_controls(const float (&p)[kParameters], Controls& out) {
  constexpr float kMost = 3.40282347e38f;
  constexpr float kMostTokens = 0x1p30f;  // more than any vocabulary, and an integer
  const bool good = p[kTemperature] >= 0.0f && p[kTemperature] <= kMost && p[kTopK] >= 0.0f && p[kTopK] <= kMost &&
                    p[kTopP] >= 0.0f && p[kTopP] <= 1.0f && p[kMinP] >= 0.0f && p[kMinP] <= 1.0f &&
                    p[kRepetitionPenalty] > 0.0f && p[kRepetitionPenalty] <= kMost;
  if (!good) return false;
  out.greedy = p[kTemperature] == 0.0f;
  out.temperature = out.greedy ? 1.0f : p[kTemperature];
  out.penalty = p[kRepetitionPenalty];
  out.top_p = p[kTopP];
  out.least_gap = math::log<math::Fused>(p[kMinP]);
  out.top_k = static_cast<int64_t>(p[kTopK] < kMostTokens ? p[kTopK] : kMostTokens);
  return true;
}

// Step 1 for a token of the history. The product is rounded before anything is subtracted from it: on the CPU a division
// follows, and nvcc must be kept from merging it with the subtraction.
IGF_INLINE float penalised(float logit, float penalty) {
#if defined(__CUDA_ARCH__)
  const float product = __fmul_rn(logit, penalty);
#else
  const float product = logit * penalty;
#endif
  return logit > 0.0f ? logit / penalty : product;
}

// The weight of a token beside the best one, and the whole number of units that it weighs in top-p: [0, 2^30].
IGF_INLINE float weight_of(float score, float largest) { return math::exp<math::Fused>(score - largest); }
IGF_INLINE uint32_t mass_of(float weight) {
  return static_cast<uint32_t>(static_cast<int32_t>(weight * (1.0f / kMassUnit) + 0.5f));
}

// The least mass above a token that cuts it.
IGF_INLINE uint64_t target_mass(float top_p, uint64_t mass) {
  const double share = static_cast<double>(top_p) * static_cast<double>(mass);
  const uint64_t whole = static_cast<uint64_t>(share);
  const uint64_t target = static_cast<double>(whole) < share ? whole + 1 : whole;
  return target == 0 ? 1 : target;  // the best token is always kept
}

// Scores in bins: the largest in bin 0, what is 32 or more below it in the last, which has no mass. A threshold is looked
// for among bins first; how many there are changes nothing but the time that takes.
template <int kBins>
IGF_INLINE uint32_t bin_of(float score, float largest) {
  const float place = (largest - score) * (static_cast<float>(kBins) / 32.0f);
  return place < static_cast<float>(kBins - 1) ? static_cast<uint32_t>(place) : kBins - 1;
}

// Every token with a smaller gap than this to the largest score is cut by top_p: all such tokens together weigh less
// than the rest of the mass. `total` is the sum of exp(s - largest), to a few per cent. -inf where units are too coarse
// for the argument (rounded to units, light tokens may weigh more).
IGF_INLINE float lightest_gap(float top_p, float total, int64_t vocab) {
  const float weight = 0.9f * (1.0f - top_p) * total / static_cast<float>(vocab);
  return weight < 16.0f * kMassUnit ? -kInfinity : math::log(weight);
}

// Where a token's word stands: the block, and which word of it.
IGF_INLINE uint32_t block_of(uint32_t token) { return token / kTile * kTileBlocks + token % kTileBlocks; }
IGF_INLINE uint32_t word_of(uint32_t token) { return token / kTileBlocks % 4; }

// Where in key and counter a row's numbers come from.
struct Stream {
  philox::Key key;
  uint32_t position_low, position_high;
};
IGF_INLINE Stream stream_of(int64_t seed, int64_t position) {
  const uint64_t bits = static_cast<uint64_t>(position);
  return {philox::key_of(seed), static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
}
IGF_INLINE philox::Block block_at(const Stream& stream, uint32_t index) {
  return philox::draw({index, stream.position_low, stream.position_high, philox::kSampling}, stream.key);
}

// The token's place in the race; the greatest wins. E >= u, so it is at most score - log u.
IGF_INLINE double race_key(float score, uint32_t word) {
  const float exponential = math::log1p<math::Fused>(philox::unit(word) / philox::unit_complement(word));
  return static_cast<double>(score) - static_cast<double>(math::log<math::Fused>(exponential));
}

}  // namespace sampling
}  // namespace igf
