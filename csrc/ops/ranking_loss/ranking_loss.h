// The reward model's loss over all ordered pairs of each group of ranked answers, ties dropped, with its gradient.
//
//   loss = sum over groups with pairs of 1/|P| sum over (w, l) in P of -log sigmoid(s_w - s_l),  P: rank_w < rank_l
//   d loss / d s_w gains, d s_l loses, -sigmoid(s_l - s_w) / |P|
// Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1, before the mean over prompts; |P| is C(K, 2) when nothing ties.
//
// Shapes: scores, gradient [answers] f32; ranks [answers] int64, smaller is better; offsets [groups + 1] int64: group g
// owns the answers offsets[g] .. offsets[g + 1] - 1; they start at 0, never fall and end at `answers`. On the CPU the
// caller has checked that; on CUDA the kernel looks, reads nothing outside, and makes the loss NaN where it is not so.
// Numbers: pairs in f32, sums of a group in double, groups added in a fixed order: the bits do not depend on the number
// of threads. A group costs K (K - 1) / 2 pairs (CUDA: each from both sides) and no memory beyond a fixed buffer.
#pragma once

#include <cstdint>

#include "device/context.h"
#include "device/math.h"

namespace igf {

// -log sigmoid(margin), and minus its derivative: sigmoid(-margin).
struct RankingTerm {
  float loss;
  float slope;
};

IGF_INLINE RankingTerm ranking_term(float margin) {
  const float small = math::exp(margin < 0.0f ? margin : -margin);
  return {(margin < 0.0f ? -margin : 0.0f) + math::log1p(small), (margin < 0.0f ? 1.0f : small) / (1.0f + small)};
}

// A pair's share in the pairs that agree with the ranks.
IGF_INLINE double ranking_agreement(float margin) { return margin > 0.0f ? 1.0 : margin == 0.0f ? 0.5 : 0.0; }

// CPU.
struct RankingLossArguments {
  const float* scores;
  const int64_t* ranks;
  const int64_t* offsets;
  float* gradient;  // null: not wanted
  int64_t groups;
};

struct RankingLossResult {
  double loss = 0;
  double num_correct = 0;  // a pair of equal scores counts half
  int64_t num_prompts = 0;
  int64_t num_pairs = 0;
};

RankingLossResult ranking_loss_forward(const RankingLossArguments& arguments);

// CUDA: groups that one block takes; the loss is added block by block.
inline constexpr int kRankingGroups = 8;

struct RankingLossCuda {
  const float* scores;
  const int64_t* ranks;
  const int64_t* offsets;
  float* gradient;   // null: not wanted
  double* partials;  // [ranking_loss_partials(groups)]
  float* loss;       // [], as the next three
  int64_t* num_prompts;
  int64_t* num_pairs;
  float* num_correct;
  int64_t groups;
  int64_t answers;
  uint32_t* arrivals;  // set by the launcher
};

inline int64_t ranking_loss_blocks(int64_t groups) { return groups == 0 ? 1 : ceil_div(groups, kRankingGroups); }

// How many doubles `partials` must have: the blocks' losses, then three more sums of each block.
inline int64_t ranking_loss_partials(int64_t groups) { return 4 * ranking_loss_blocks(groups); }

void ranking_loss_cuda(RankingLossCuda arguments, const DeviceContext& context);

}  // namespace igf
