// ranking_loss on the CPU: the pairs of a group are listed into a buffer, whose terms a vectorised loop computes.
#include "ops/ranking_loss/ranking_loss.h"

#include <algorithm>
#include <vector>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "device/math.h"

namespace igf {
namespace {

constexpr int kBuffer = 256;  // pairs at a time: seven groups of nine answers, or a part of a larger group

struct Pairs {
  alignas(64) float margin[kBuffer], term[kBuffer], slope[kBuffer];
  int64_t better[kBuffer], worse[kBuffer];
  int count = 0;
};

IGF_CLONES void compute(Pairs& pairs) {
  for (int i = 0; i < pairs.count; ++i) {
    const RankingTerm term = ranking_term(pairs.margin[i]);
    pairs.term[i] = term.loss;
    pairs.slope[i] = -term.slope;
  }
}

struct Group {
  double loss = 0;
  double correct = 0;
  int64_t pairs = 0;
};

// Adds what the buffer holds to the group, its gradient to `slopes` (one number an answer, not yet divided by |P|).
void flush(Pairs& pairs, Group& group, double* slopes) {
  compute(pairs);
  for (int i = 0; i < pairs.count; ++i) {
    group.loss += pairs.term[i];
    group.correct += ranking_agreement(pairs.margin[i]);
    slopes[pairs.better[i]] += pairs.slope[i];
    slopes[pairs.worse[i]] -= pairs.slope[i];
  }
  group.pairs += pairs.count;
  pairs.count = 0;
}

Group one_group(const float* scores, const int64_t* ranks, int64_t answers, double* slopes, Pairs& pairs) {
  Group group;
  for (int64_t i = 0; i < answers; ++i) {
    for (int64_t j = i + 1; j < answers; ++j) {
      if (ranks[i] == ranks[j]) continue;
      const int64_t better = ranks[i] < ranks[j] ? i : j, worse = ranks[i] < ranks[j] ? j : i;
      pairs.better[pairs.count] = better;
      pairs.worse[pairs.count] = worse;
      pairs.margin[pairs.count] = scores[better] - scores[worse];
      if (++pairs.count == kBuffer) flush(pairs, group, slopes);
    }
  }
  flush(pairs, group, slopes);
  return group;
}

void some_groups(const RankingLossArguments& a, int64_t first, int64_t last, Group* groups) {
  Pairs pairs;
  std::vector<double> slopes;
  for (int64_t g = first; g < last; ++g) {
    const int64_t begin = a.offsets[g], answers = a.offsets[g + 1] - begin;
    slopes.assign(static_cast<size_t>(answers), 0.0);
    groups[g] = one_group(a.scores + begin, a.ranks + begin, answers, slopes.data(), pairs);
    if (a.gradient == nullptr) continue;
    const double share = groups[g].pairs > 0 ? 1.0 / static_cast<double>(groups[g].pairs) : 0.0;
    for (int64_t i = 0; i < answers; ++i) a.gradient[begin + i] = static_cast<float>(slopes[i] * share);
  }
}

}  // namespace

RankingLossResult ranking_loss_forward(const RankingLossArguments& a) {
  std::vector<Group> groups(static_cast<size_t>(a.groups));
  // Sixteen groups of nine answers take a few microseconds, about what waking a thread costs.
  parallel_for(0, a.groups, 16, [&](int64_t first, int64_t last) { some_groups(a, first, last, groups.data()); });
  RankingLossResult result;
  for (const Group& group : groups) {
    if (group.pairs == 0) continue;
    result.loss += group.loss / static_cast<double>(group.pairs);
    result.num_correct += group.correct;
    result.num_prompts += 1;
    result.num_pairs += group.pairs;
  }
  return result;
}

}  // namespace igf
