// ranking_loss on CUDA devices: loss, counts and gradient in one launch.
//
// Work     a block takes eight groups. A group of at most 32 answers belongs to a warp: a lane holds one and meets
//          the others by shuffles, so that each pair is looked at from both of its ends and no answer waits for
//          another's sum. Larger groups belong to the whole block, one after the other, over tiles of 256 answers in
//          shared memory. The last block adds what the blocks have found.
// Memory   12 bytes an answer read, 4 written (none without the gradient), 8 bytes an offset, 64 bytes a block. Larger
//          groups: 12 bytes an answer for each tile of the group, and the gradient 4 more read and written. At the
//          paper's sizes (64 groups of 4 to 9 answers) the launch itself takes most of the time.
// Numbers  pairs in f32, as on the CPU; sums in double: of a group's pairs over lanes or threads, of groups in their
//          order in a block, of blocks by the threads of the last one. Nothing hangs on the number of multiprocessors.
// Limits   offsets that do not start at 0, fall, or do not end at the number of answers give a NaN loss and no defined
//          gradient; nothing outside the scores is read. Speed: not measured.
// Source   the equations are in ranking_loss.h.
#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "device/reductions.cuh"
#include "ops/ranking_loss/ranking_loss.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = kRankingGroups * kWarp;
constexpr int kSums = 4;  // of a group, a block, and all: loss, pairs that agree, groups with pairs, pairs

// An answer, and what its pairs add up to. The better one of a pair counts it.
struct Answer {
  float score;
  int64_t rank;
  double slope = 0.0;  // of the sum of terms, by the score
  double loss = 0.0;
  double agreeing = 0.0;
  double pairs = 0.0;

  IGF_DEVICE void meet(float other_score, int64_t other_rank) {
    if (other_rank == rank) return;  // tied, or the answer itself
    const bool better = rank < other_rank;
    const float margin = better ? score - other_score : other_score - score;
    const RankingTerm term = ranking_term(margin);
    slope += better ? -term.slope : term.slope;
    if (!better) return;
    loss += term.loss;
    agreeing += ranking_agreement(margin);
    pairs += 1.0;
  }
};

// The sums of a group from those over its answers' pairs: loss, pairs that agree, pairs.
IGF_DEVICE void put_group(double (&sums)[kSums], const double (&of_pairs)[3]) {
  const bool counts = of_pairs[2] > 0.0;
  sums[0] = counts ? of_pairs[0] / of_pairs[2] : 0.0;
  sums[1] = of_pairs[1];
  sums[2] = counts ? 1.0 : 0.0;
  sums[3] = of_pairs[2];
}

// By a warp: answers [begin, begin + size), size <= 32.
IGF_DEVICE void small_group(const RankingLossCuda& a, int64_t begin, int size, double (&sums)[kSums]) {
  const int lane = lane_index();  // the answer's place in the group, if below size
  const bool holds = lane < size;
  Answer answer{};
  if (holds) {
    answer.score = load(a.scores + begin + lane);
    answer.rank = load(a.ranks + begin + lane);
  }
  for (int other = 0; other < size; ++other) {
    const float score = shuffle(answer.score, other);
    const int64_t rank = shuffle(answer.rank, other);
    if (holds) answer.meet(score, rank);
  }
  const double of_pairs[3] = {warp_sum(answer.loss), warp_sum(answer.agreeing), warp_sum(answer.pairs)};
  if (a.gradient != nullptr && holds) {
    store(a.gradient + begin + lane, static_cast<float>(of_pairs[2] > 0.0 ? answer.slope / of_pairs[2] : 0.0));
  }
  put_group(sums, of_pairs);
}

// By the block: any size.
IGF_DEVICE void large_group(const RankingLossCuda& a, int64_t begin, int64_t size, double (&sums)[kSums]) {
  IGF_SHARED_ARRAY(float, tile_scores, kThreads);
  IGF_SHARED_ARRAY(int64_t, tile_ranks, kThreads);
  IGF_SHARED_ARRAY(double, scratch, 3 * kThreads / kWarp);
  double of_pairs[3] = {0.0, 0.0, 0.0};
  for (int64_t place = thread_x(); place - thread_x() < size; place += kThreads) {
    const bool holds = place < size;  // place: of this thread's answer in the group
    Answer answer{};
    if (holds) {
      answer.score = load(a.scores + begin + place);
      answer.rank = load(a.ranks + begin + place);
    }
    for (int64_t first = 0; first < size; first += kThreads) {
      if (first + thread_x() < size) {
        tile_scores[thread_x()] = load(a.scores + begin + first + thread_x());
        tile_ranks[thread_x()] = load(a.ranks + begin + first + thread_x());
      }
      block_barrier();  // the tile is there
      const int others = static_cast<int>(size - first < kThreads ? size - first : kThreads);
      for (int other = 0; holds && other < others; ++other) answer.meet(tile_scores[other], tile_ranks[other]);
      block_barrier();  // the tile has been read and may be written again
    }
    of_pairs[0] += answer.loss;
    of_pairs[1] += answer.agreeing;
    of_pairs[2] += answer.pairs;
    if (a.gradient != nullptr && holds) store(a.gradient + begin + place, static_cast<float>(answer.slope));
  }
  row_sum<kThreads>(of_pairs, scratch);
  // How many pairs there are is known only now; each thread divides what it wrote itself.
  for (int64_t place = thread_x(); a.gradient != nullptr && of_pairs[2] > 0.0 && place < size; place += kThreads) {
    float* slope = a.gradient + begin + place;
    store(slope, static_cast<float>(load(slope) / of_pairs[2]));
  }
  put_group(sums, of_pairs);
}

// Whether group `group`, of which begin and end are read, and the offsets at both ends are as they must be.
IGF_DEVICE bool is_sound(const RankingLossCuda& a, int64_t group, int64_t begin, int64_t end) {
  return 0 <= begin && begin <= end && end <= a.answers && (group > 0 || begin == 0) &&
         (group < a.groups - 1 || end == a.answers);
}

// Whether the whole block works on it.
IGF_DEVICE bool is_large(const RankingLossCuda& a, int64_t group, int64_t begin, int64_t end) {
  return end - begin > kWarp && is_sound(a, group, begin, end);
}

IGF_DEVICE void put(double* shared, const double (&sums)[kSums]) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) shared[i] = sums[i];
}

// The block's sums, group by group in order, in thread 0.
IGF_DEVICE void block_sums(const RankingLossCuda& a, double (&totals)[kSums]) {
  IGF_SHARED_ARRAY(int64_t, offsets, kRankingGroups + 1);
  IGF_SHARED_ARRAY(double, of_groups, kRankingGroups * kSums);
  const int64_t first = block_x() * kRankingGroups;  // [0, groups), or 0 where there are none
  const int groups = static_cast<int>(a.groups - first < kRankingGroups ? a.groups - first : kRankingGroups);
  if (thread_x() <= groups) offsets[thread_x()] = load(a.offsets + first + thread_x());
  block_barrier();  // the offsets are there

  const int own = thread_x() / kWarp;  // [0, kRankingGroups): this warp's group in the block
  if (own < groups && !is_large(a, first + own, offsets[own], offsets[own + 1])) {
    double sums[kSums] = {math::kInfinity - math::kInfinity};  // a NaN loss
    if (is_sound(a, first + own, offsets[own], offsets[own + 1])) {
      small_group(a, offsets[own], static_cast<int>(offsets[own + 1] - offsets[own]), sums);
    }
    if (lane_index() == 0) put(of_groups + own * kSums, sums);
  }
  for (int group = 0; group < groups; ++group) {
    if (!is_large(a, first + group, offsets[group], offsets[group + 1])) continue;
    double sums[kSums];
    large_group(a, offsets[group], offsets[group + 1] - offsets[group], sums);
    if (thread_x() == 0) put(of_groups + group * kSums, sums);
  }
  block_barrier();  // every group's sums are there
  if (thread_x() == 0) {
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) totals[i] += of_groups[group * kSums + i];
    }
    if (groups == 0 && (offsets[0] != 0 || a.answers != 0)) totals[0] = math::kInfinity - math::kInfinity;
  }
}

IGF_KERNEL(kThreads)
ranking_loss_groups(RankingLossCuda a) {
  IGF_SHARED_ARRAY(double, scratch, kSums * kThreads / kWarp);
  double sums[kSums] = {};
  block_sums(a, sums);
  if (thread_x() == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) store(a.partials + i * grid_x() + block_x(), sums[i]);
  }
  if (!is_last_block(a.arrivals, static_cast<uint32_t>(grid_x()))) return;
  double totals[kSums] = {};
  for (int64_t block = thread_x(); block < grid_x(); block += kThreads) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) totals[i] += load_shared_by_blocks(a.partials + i * grid_x() + block);
  }
  row_sum<kThreads>(totals, scratch);
  if (thread_x() != 0) return;
  store(a.loss, static_cast<float>(totals[0]));
  store(a.num_correct, static_cast<float>(totals[1]));
  store(a.num_prompts, static_cast<int64_t>(totals[2]));
  store(a.num_pairs, static_cast<int64_t>(totals[3]));
}

}  // namespace

void ranking_loss_cuda(RankingLossCuda a, const DeviceContext& context) {
  a.arrivals = context.arrivals;
  const LaunchShape shape{ranking_loss_blocks(a.groups), 1, kThreads, 1};
  launch("ranking_loss", ranking_loss_groups, shape, context, a);
}

}  // namespace igf
