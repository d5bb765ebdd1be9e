// The threshold of top-k and top-p: the least score with less than a target of counts, or of mass, above it.
//
// Found from the top by histograms: first over bins of equal width below the largest score, then over some bits at a time
// of the scores in the bin where the target is reached. After the first, what is left is listed, where the list can hold it;
// else the row is read again each time. All sums are of integers: neither atomics nor the list's order leave a trace.
#pragma once

#include "ops/sample_token/sample_token_row.cuh"

namespace igf::sampling {

// Four bins a thread, which one 16-byte access reads; a power of two.
template <int kThreads>
constexpr int kBins = 4 * kThreads;
template <int kThreads>
constexpr int kBinBits = kThreads == 128 ? 9 : kThreads == 256 ? 10 : 11;

// The shared memory of a selection.
struct Bench {
  uint32_t* low;          // [kBins] sums by bin, their lower halves ...
  uint32_t* high;         // [kBins] ... and upper halves
  float* listed_scores;   // [listed]
  uint32_t* listed_tokens;
  uint64_t* warp_totals;  // [kThreads / kWarp]
  uint32_t* found;        // [3]: the bin, the rest of the target, lower and upper half
  uint32_t* listed_count;
};

// Where in the ranking of the bins a target is reached, and how much of it is left for that bin.
struct Crossing {
  uint32_t bin;
  uint64_t rest;
};

// Whether a token is still in question, or kept for certain.
struct Kept {
  float least_score = -kInfinity;
  float least_gap = -kInfinity;
};

IGF_DEVICE void add(const Bench& bench, uint32_t bin, uint64_t amount IGF_SITE_PARAMETER) {
  const uint32_t low = static_cast<uint32_t>(amount);
  const uint32_t before = atomic_add(bench.low + bin, low IGF_SITE);
  const uint32_t high = static_cast<uint32_t>(amount >> 32) + (before + low < low ? 1u : 0u);
  if (high != 0) atomic_add(bench.high + bin, high IGF_SITE);
}

// Sets all bins to 0.
IGF_DEVICE void clear(const Bench& bench IGF_SITE_PARAMETER) {
  using Four = Vector<uint32_t, 4>;
  store(reinterpret_cast<Four*>(bench.low) + thread_x(), Four{} IGF_SITE);
  store(reinterpret_cast<Four*>(bench.high) + thread_x(), Four{} IGF_SITE);
}

// The first bin at which the sum from bin 0 on reaches the target; the bins are 0 afterwards. `share` below 1 stands for
// the target that this share of the whole sum makes.
template <int kThreads>
IGF_DEVICE Crossing crossing(const Bench& bench, uint64_t target, float share IGF_SITE_PARAMETER) {
  constexpr int kWarps = kThreads / kWarp;
  block_barrier();  // all amounts are in their bins
  using Four = Vector<uint32_t, 4>;
  const Four low = load(reinterpret_cast<const Four*>(bench.low) + thread_x() IGF_SITE);
  const Four high = load(reinterpret_cast<const Four*>(bench.high) + thread_x() IGF_SITE);
  clear(bench IGF_SITE);
  uint64_t amounts[4];
  uint64_t mine = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    amounts[i] = static_cast<uint64_t>(high.lanes[i]) << 32 | low.lanes[i];
    mine += amounts[i];
  }
  uint64_t through = mine;  // the sum through this thread's bins, within the warp
#pragma unroll
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const uint64_t other = shuffle_up(through, delta, kAllLanes IGF_SITE);
    if (lane_index() >= delta) through += other;
  }
  const int warp = thread_x() / kWarp;  // [0, kWarps)
  if (lane_index() == kWarp - 1) bench.warp_totals[warp] = through;
  block_barrier();  // every warp's total is in warp_totals
  uint64_t above = through - mine;
  uint64_t all = 0;
#pragma unroll 1
  for (int w = 0; w < kWarps; ++w) {
    const uint64_t total = bench.warp_totals[w];
    above += w < warp ? total : 0;
    all += total;
  }
  if (share < 1.0f) target = target_mass(share, all);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (above < target && target <= above + amounts[i]) {  // in one thread of the block, for one bin
      const uint64_t rest = target - above;
      bench.found[0] = static_cast<uint32_t>(thread_x() * 4 + i);
      bench.found[1] = static_cast<uint32_t>(rest);
      bench.found[2] = static_cast<uint32_t>(rest >> 32);
    }
    above += amounts[i];
  }
  block_barrier();  // the crossing is in found, and the bins are 0
  return {bench.found[0], static_cast<uint64_t>(bench.found[2]) << 32 | bench.found[1]};
}

// The tokens of a row that are not yet cut away: the row itself, or the list.
template <typename T, int kThreads>
class Field {
 public:
  IGF_DEVICE Field(Row<T, kThreads>& row, const Bench& bench, float largest, int most_listed)
      : row_(row), bench_(bench), largest_(largest), most_listed_(most_listed) {}

  // Calls visitor(score) for every token.
  template <typename Visitor>
  IGF_DEVICE void each(const Visitor& visitor IGF_SITE_PARAMETER) {
    if (listed_ >= 0) {
      for (int i = thread_x(); i < listed_; i += kThreads) visitor(bench_.listed_scores[i]);
      return;
    }
    row_.visit([&](const float (&scores)[4], const float (&)[4], uint32_t, int) {
#pragma unroll
      for (int k = 0; k < 4; ++k) visitor(scores[k]);
    } IGF_SITE);
  }

  // The least score with less than the target above it, among tokens of at least `floor`: with less than `count` tokens,
  // or where `count` is 0 with less than the share top_p of the mass. Tokens in bins behind `last_bin` are known to be
  // below it; their mass is part of the whole.
  IGF_DEVICE float threshold(uint64_t count, float top_p, float floor, uint32_t last_bin IGF_SITE_PARAMETER) {
    if (thread_x() == 0) *bench_.listed_count = 0;  // read before the crossing that came before, counted up after this
    const auto amount = [&](float score) { return count != 0 ? 1u : mass_of(weight_of(score, largest_)); };
    uint64_t behind = 0;
    each([&](float score) {
      if (!(score >= floor)) return;
      const uint32_t bin = bin_of<kBins<kThreads>>(score, largest_);
      if (bin <= last_bin) {
        add(bench_, bin, amount(score) IGF_SITE);
      } else if (count == 0) {
        behind += amount(score);
      }
    } IGF_SITE);
    if (count == 0) {
      behind = warp_sum(behind IGF_SITE);
      if (lane_index() == 0 && behind != 0) add(bench_, kBins<kThreads> - 1, behind IGF_SITE);
    }
    const Crossing first = crossing<kThreads>(bench_, count, count != 0 ? 1.0f : top_p IGF_SITE);
    if (listed_ < 0) list(first.bin, floor IGF_SITE);
    // The bits of the threshold, kBinBits at a time: those from `bits` on are known, and stand in `prefix`.
    uint32_t prefix = 0;
    uint64_t rest = first.rest;
    for (int bits = 32; bits > 0;) {
      const int shift = bits > kBinBits<kThreads> ? bits - kBinBits<kThreads> : 0;
      const uint32_t last_digit = (1u << (bits - shift)) - 1;
      each([&](float score) {
        if (!(score >= floor) || bin_of<kBins<kThreads>>(score, largest_) != first.bin) return;
        const uint32_t key = ordered(score);
        if (static_cast<uint64_t>(key ^ prefix) >> bits != 0) return;
        add(bench_, last_digit - (key >> shift & last_digit), amount(score) IGF_SITE);
      } IGF_SITE);
      const Crossing found = crossing<kThreads>(bench_, rest, 1.0f IGF_SITE);
      prefix |= (last_digit - found.bin) << shift;
      rest = found.rest;
      bits = shift;
    }
    return from_ordered(prefix);
  }

  // The best runner among the kept, as far as this thread knows.
  IGF_DEVICE Runner race(const Stream& stream, const Kept& kept IGF_SITE_PARAMETER) {
    const auto keeps = [&](float s) { return s >= kept.least_score && s - largest_ >= kept.least_gap; };
    if (listed_ >= 0) {
      Runner best = kNobody;
      for (int i = thread_x(); i < listed_; i += kThreads) {
        const float score = bench_.listed_scores[i];
        if (!keeps(score)) continue;
        const uint32_t token = bench_.listed_tokens[i];
        const philox::Block block = block_at(stream, block_of(token));
        const uint32_t which = word_of(token);
        const uint32_t word = which == 0 ? block.w0 : which == 1 ? block.w1 : which == 2 ? block.w2 : block.w3;
        meet(best, {race_key(score, word), score, token});
      }
      return best;
    }
    Race race(stream);
    row_.visit([&](const float (&scores)[4], const float (&)[4], uint32_t token, int turn) {
      float runners[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) runners[k] = keeps(scores[k]) ? scores[k] : -kInfinity;
      race.run(runners, token, turn IGF_SITE);
    } IGF_SITE);
    return race.best();
  }

 private:
  // Lists the tokens of at least `floor` in bins [0, last_bin], if the list can hold them.
  IGF_DEVICE void list(uint32_t last_bin, float floor IGF_SITE_PARAMETER) {
    row_.visit([&](const float (&scores)[4], const float (&)[4], uint32_t token, int turn) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const bool wanted = scores[k] >= floor && bin_of<kBins<kThreads>>(scores[k], largest_) <= last_bin;
        const uint32_t lanes = ballot(wanted, kAllLanes IGF_SITE);
        if (lanes == 0) continue;
        uint32_t place = 0;
        if (lane_index() == 0) place = atomic_add(bench_.listed_count, static_cast<uint32_t>(count_bits(lanes)) IGF_SITE);
        place = shuffle(place, 0, kAllLanes IGF_SITE) + count_bits(lanes & ((1u << lane_index()) - 1));
        if (wanted && place < static_cast<uint32_t>(most_listed_)) {
          bench_.listed_scores[place] = scores[k];
          bench_.listed_tokens[place] = token + static_cast<uint32_t>(kTileBlocks * ((k + turn) % 4));
        }
      }
    } IGF_SITE);
    block_barrier();  // the list is whole, and counted
    const uint32_t count = *bench_.listed_count;
    if (count <= static_cast<uint32_t>(most_listed_)) listed_ = static_cast<int>(count);
  }

  Row<T, kThreads>& row_;
  const Bench& bench_;
  float largest_;
  int most_listed_;
  int listed_ = -1;
};

}  // namespace igf::sampling
