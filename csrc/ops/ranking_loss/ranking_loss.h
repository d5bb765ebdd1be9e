// The reward model's loss over all ordered pairs of each group of ranked answers, ties dropped, with its gradient.
//
//   loss = sum over groups with pairs of 1/|P| sum over (w, l) in P of -log sigmoid(s_w - s_l),  P: rank_w < rank_l
//   d loss / d s_w gains, d s_l loses, -sigmoid(s_l - s_w) / |P|
// Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1, before the mean over prompts; |P| is C(K, 2) when nothing ties.
//
// Shapes: scores, gradient [answers] f32; ranks [answers] int64, smaller is better; offsets [groups + 1] int64: group g
// owns the answers offsets[g] .. offsets[g + 1] - 1; the caller has checked that they start at 0, never fall and end at
// `answers`.
// Numbers: pairs in f32, sums of a group in double, groups added in order: the bits do not depend on the number of
// threads. A group costs K (K - 1) / 2 pairs and no memory beyond a fixed buffer, whatever K.
#pragma once

#include <cstdint>

namespace igf {

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

}  // namespace igf
