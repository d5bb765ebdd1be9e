// One row of logits as a block sees it: kept in shared memory, or brought there chunk by chunk; its scores; its race.
#pragma once

#include "device/fast_math.cuh"
#include "device/reductions.cuh"
#include "device/vectors.cuh"
#include "ops/sample_token/sample_token.h"

namespace igf::sampling {

using namespace device;

constexpr float kLowest = -3.40282347e38f;
constexpr uint32_t kNoToken = 0xffffffffu;

// What one launch is told.
struct Launch {
  SampleTokenArguments call;
  uint32_t* partials;
  uint32_t* arrivals;
  int32_t slice;   // tokens of a row that one block reads where nothing is cut away; a multiple of kTile
  int32_t slices;  // blocks of a row
  int32_t chunk;   // tokens that shared memory holds, a multiple of kTile
  int32_t listed;  // tokens that the list holds
  int32_t marks;   // words of one bit a token; 0 without a history
};

// The best runner so far. Runners are compared by key, equals by token.
struct Runner {
  double key;
  float score;
  uint32_t token;
};

constexpr Runner kNobody{-static_cast<double>(kInfinity), -kInfinity, kNoToken};

IGF_DEVICE void meet(Runner& best, const Runner& other) {
  if (other.key > best.key || (other.key == best.key && other.token < best.token)) best = other;
}

// What a thread, a warp, a block, or several blocks know of the tokens they have read.
struct Standing {
  Runner best;
  double total;   // of exp(s - largest)
  float largest;  // score
  uint32_t bad;   // a logit was NaN or +inf, or a token of the history beyond the vocabulary
};

IGF_DEVICE void meet(Standing& mine, const Standing& other) {
  const float largest = fmaxf(mine.largest, other.largest);
  mine.total = mine.total * static_cast<double>(fast_exp(mine.largest - largest)) +
               other.total * static_cast<double>(fast_exp(other.largest - largest));
  mine.largest = largest;
  mine.bad |= other.bad;
  meet(mine.best, other.best);
}

// The warp's standing, in lane 0.
IGF_DEVICE Standing gathered_by_warp(Standing mine IGF_SITE_PARAMETER) {
#pragma unroll
  for (int delta = kWarp / 2; delta > 0; delta /= 2) {
    Standing other;
    other.best.key = shuffle_down(mine.best.key, delta, kAllLanes IGF_SITE);
    other.best.score = shuffle_down(mine.best.score, delta, kAllLanes IGF_SITE);
    other.best.token = shuffle_down(mine.best.token, delta, kAllLanes IGF_SITE);
    other.largest = shuffle_down(mine.largest, delta, kAllLanes IGF_SITE);
    other.total = shuffle_down(mine.total, delta, kAllLanes IGF_SITE);
    other.bad = shuffle_down(mine.bad, delta, kAllLanes IGF_SITE);
    if (lane_index() < delta) meet(mine, other);
  }
  return mine;
}

// The block's standing, in every thread; `scratch` is used by no other call.
template <int kThreads>
IGF_DEVICE Standing gathered_by_block(const Standing& mine, Standing* scratch IGF_SITE_PARAMETER) {
  const Standing of_warp = gathered_by_warp(mine IGF_SITE);
  if (lane_index() == 0) scratch[thread_x() / kWarp] = of_warp;
  block_barrier();  // every warp's standing is in scratch
  Standing all = scratch[0];
#pragma unroll 1  // unrolled, all of them would be in registers at once
  for (int w = 1; w < kThreads / kWarp; ++w) meet(all, scratch[w]);
  return all;
}

// s / t as IEEE 754 rounds it, given r = 1 / t: two steps of correction reach it where nothing under- or overflows.
IGF_DEVICE float quotient(float s, float t, float r) {
  constexpr float kSmall = 0x1p-40f;
  constexpr float kLarge = 0x1p40f;
  float q = s * r;
  if (!(fabsf(q) > kSmall && fabsf(q) < kLarge && t > kSmall && t < kLarge)) return s / t;
  q = fmaf(fmaf(-q, t, s), r, q);
  return fmaf(fmaf(-q, t, s), r, q);
}

// Orders floats as unsigned numbers, and back. Not NaN.
IGF_DEVICE uint32_t ordered(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
IGF_DEVICE float from_ordered(uint32_t key) {
  return __builtin_bit_cast(float, (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// The tokens [begin, end) of a row. A thread visits four tokens at a time, those that share a block of random numbers.
template <typename T, int kThreads>
class Row {
 public:
  // `cache` holds `chunk` logits and one vector; `marks` says which tokens are penalised, null for none.
  IGF_DEVICE Row(const T* logits, int begin, int end, int chunk, T* cache, const uint32_t* marks,
                 const Controls& controls)
      : logits_(logits), cache_(cache), marks_(marks), begin_(begin), end_(end), chunk_(chunk),
        temperature_(controls.temperature), reciprocal_(1.0f / controls.temperature), penalty_(controls.penalty) {}

  // Calls visitor(scores, logits, token, turn): scores[k] is that of the token + 16 * ((k + turn) % 4), turn in [0, 4);
  // where there is no such token, score and logit are -inf. All lanes of a warp call it together.
  template <typename Visitor>
  IGF_DEVICE void visit(const Visitor& visitor IGF_SITE_PARAMETER) {
    for (int first = begin_; first < end_; first += chunk_) {
      const int count = end_ - first < chunk_ ? end_ - first : chunk_;
      if (!loaded_) {
        block_barrier();  // the chunk before has been read
        pad_ = fetch(first, count IGF_SITE);
        block_barrier();  // this chunk is in shared memory
        loaded_ = end_ - begin_ <= chunk_;
      }
      // Two tiles are one warp's work; the second takes its four tokens in another turn, so that the two halves of a
      // warp read from different banks.
      constexpr int kHalfTurn = sizeof(T) == 2 ? 2 : 1;
      const int quads = (count + 2 * kTile - 1) / (2 * kTile) * (2 * kTileBlocks);
#pragma unroll 1
      for (int q = thread_x(); q < quads; q += kThreads) {
        const int place = q / kTileBlocks * kTile + q % kTileBlocks;  // in the chunk
        const int turn = q / kTileBlocks % 2 == 0 ? 0 : kHalfTurn;
        float logits[4];
        float scores[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = place + kTileBlocks * ((k + turn) % 4);
          logits[k] = i < count ? to_float(cache_[pad_ + i]) : -kInfinity;
          scores[k] = score(logits[k], first + i, i < count);
        }
        visitor(scores, logits, static_cast<uint32_t>(first + place), turn);
      }
    }
  }

 private:
  // Brings [first, first + count) to the cache, 16 bytes at a time; returns where in the cache it begins.
  IGF_DEVICE int fetch(int first, int count IGF_SITE_PARAMETER) {
    constexpr int kLanes = kVectorLanes<T>;
    constexpr int kFlight = 4;  // loads in flight
    const T* source = logits_ + first;
    const int beyond = static_cast<int>(reinterpret_cast<uintptr_t>(source) % kVectorBytes / sizeof(T));
    const int before = (kLanes - beyond) % kLanes;
    const int head = before < count ? before : count;  // logits before the first whole vector
    const int vectors = (count - head) / kLanes;
    const int edges = count - vectors * kLanes;  // logits in no whole vector
    T* const target = cache_ + beyond;
    if (thread_x() < edges) {
      const int i = thread_x() < head ? thread_x() : vectors * kLanes + thread_x();
      target[i] = load(source + i IGF_SITE);
    }
    const Packed<T>* from = reinterpret_cast<const Packed<T>*>(source + head);
    Packed<T>* to = reinterpret_cast<Packed<T>*>(target + head);
    for (int v = thread_x(); v < vectors; v += kFlight * kThreads) {
      Packed<T> packed[kFlight];
#pragma unroll
      for (int i = 0; i < kFlight; ++i) {
        if (v + i * kThreads < vectors) packed[i] = load(from + v + i * kThreads IGF_SITE);
      }
#pragma unroll
      for (int i = 0; i < kFlight; ++i) {
        if (v + i * kThreads < vectors) store(to + v + i * kThreads, packed[i] IGF_SITE);
      }
    }
    return beyond;
  }

  IGF_DEVICE float score(float logit, int token, bool inside) const {
    float s = logit;
    if (marks_ != nullptr && inside && (marks_[token / 32] >> (token % 32) & 1u) != 0) s = penalised(s, penalty_);
    return temperature_ == 1.0f ? s : quotient(s, temperature_, reciprocal_);
  }

  const T* logits_;
  T* cache_;
  const uint32_t* marks_;
  int begin_, end_, chunk_;
  float temperature_, reciprocal_, penalty_;
  int pad_ = 0;
  bool loaded_ = false;
};

// A warp's race. Most tokens are turned away by a bound on their key, which costs one logarithm of the hardware.
class Race {
 public:
  IGF_DEVICE explicit Race(const Stream& stream) : stream_(stream), best_(kNobody), bar_(-kInfinity) {}

  // Lets four tokens run, as Row::visit gives them; those with score -inf never win. All lanes of a warp call it.
  IGF_DEVICE void run(const float (&scores)[4], uint32_t token, int turn IGF_SITE_PARAMETER) {
    const float best_score = fmaxf(fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3]));
    if (!any_lane(best_score > -kInfinity, kAllLanes IGF_SITE)) return;
    const philox::Block block = block_at(stream_, block_of(token));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int which = (k + turn) % 4;
      const uint32_t word = which == 0 ? block.w0 : which == 1 ? block.w1 : which == 2 ? block.w2 : block.w3;
      // key = s - log E <= s - log u, and log u > log word - 32 log 2.
      const bool contends = scores[k] - fast_log(static_cast<float>(word)) > bar_;
      if (!any_lane(contends, kAllLanes IGF_SITE)) continue;
      if (contends) {
        meet(best_, {race_key(scores[k], word), scores[k], token + static_cast<uint32_t>(kTileBlocks * which)});
      }
      raise_bar(IGF_ONLY_SITE);
    }
  }

  IGF_DEVICE const Runner& best() const { return best_; }

 private:
  // A token whose s - log word is not above this has a smaller key than the warp's best: lower by more than the
  // rounding of both sides, whose terms are at most the best key's magnitude and 23.
  IGF_DEVICE void raise_bar(IGF_ONLY_SITE_PARAMETER) {
    constexpr float kLog = 22.1807098f;  // 32 log 2
    const float best = warp_max(static_cast<float>(best_.key) IGF_SITE);
    bar_ = best - kLog - 1e-3f - 1e-6f * fabsf(best);
  }

  Stream stream_;
  Runner best_;
  float bar_;
};

}  // namespace igf::sampling
