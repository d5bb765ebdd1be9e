// Decoding on CUDA cores: f32, and every width up to 256, whatever its alignment.
//
// Work     kLanes lanes hold a key, kVectors accesses of kAccess elements each; a warp takes steps of kAtOnce keys for
//          each group of such lanes. Every lane of a group gets the score by shuffles and keeps the softmax of its group's
//          positions; groups, warps and blocks are joined at the end.
// Overlap  as on the tensor cores: the next step's keys, then its values, while this one is worked on.
// Bound    memory for one query of f32: 32 instructions of a warp for 2 KB of two keys of width 64. A tile of 4 queries costs
//          three times that; elements that are loaded one by one cost 2 or 4 bytes an access. Not measured.
// Numbers  probabilities stay f32.
#pragma once

#include "device/held.cuh"
#include "ops/attention_decode/attention_decode_merge.cuh"

namespace igf::decode {

// Rows of plain floats.
struct Plain {
  static IGF_DEVICE int at(int row, int d, int width) { return row * width + d; }
};

template <typename T_, int kAccess_, int kLanes_, int kVectors_, int kQueries_>
struct General {
  using T = T_;
  static constexpr int kAccess = kAccess_;      // elements
  static constexpr int kLanes = kLanes_;        // that hold a row
  static constexpr int kVectors = kVectors_;    // accesses of each
  static constexpr int kQueries = kQueries_;    // of a tile
  static constexpr int kAtOnce = kVectors > 1 ? 2 : 4;  // keys that a lane holds, and as many values
  static constexpr int kGroups = kWarp / kLanes;
  static constexpr int kStep = kGroups * kAtOnce;
  static constexpr int kWidest = kAccess * kLanes * kVectors;
};

template <typename G>
class GeneralWarp {
 public:
  using T = typename G::T;

  IGF_DEVICE GeneralWarp(const Launch& a, const Work& work)
      : width_(static_cast<int>(a.call.shape.width)),
        keys_(a, work, a.call.k, a.call.k_cache),
        values_(a, work, a.call.v, a.call.v_cache) {
#pragma unroll
    for (int i = 0; i < G::kQueries; ++i) {
      Row row = {};
      if (i < work.queries) load_row(row, query_at<T>(a, work, i));
      unpack_row(query_[i], row);
      own_[i] = i < work.queries ? token_of(a, work, i) : 0;
      top_[i] = -math::kInfinity;
    }
  }

  IGF_DEVICE void load_keys(const Step& step IGF_SITE_PARAMETER) { load_rows(key_, keys_, step IGF_SITE); }
  IGF_DEVICE void load_values(const Step& step IGF_SITE_PARAMETER) { load_rows(value_, values_, step IGF_SITE); }

  // Writes those of the step's keys and values that are new, and this tile's, into the cache.
  IGF_DEVICE void append(const Launch& a, const Work& work, const Step& step) {
#pragma unroll
    for (int u = 0; u < G::kAtOnce; ++u) {
      const int slot = shuffle(step.slots, index(u)), fresh = step.token + index(u);
      if (slot < 0 || fresh < 0 || !appends(a, work, fresh)) continue;
      store_row(keys_.slot(slot), key_[u]);
      store_row(values_.slot(slot), value_[u]);
    }
  }

  // The step's scores; its keys have then been used.
  IGF_DEVICE void score() {
#pragma unroll
    for (int u = 0; u < G::kAtOnce; ++u) {
      float key[kElements];
      unpack_row(key, key_[u]);
#pragma unroll
      for (int i = 0; i < G::kQueries; ++i) {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < kElements; ++e) sum = fmaf(query_[i][e], key[e], sum);
#pragma unroll
        for (int mask = G::kLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        score_[i][u] = sum;
      }
    }
  }

  // Turns the scores into probabilities. masked: not every query sees the whole step.
  IGF_DEVICE void soften(const Launch& a, int token, bool masked) {
    const float factor = factor_of<T>(a);
#pragma unroll
    for (int i = 0; i < G::kQueries; ++i) {
      float top = top_[i];
#pragma unroll
      for (int u = 0; u < G::kAtOnce; ++u) {
        if (masked && !sees(own_[i], token + index(u), a.window)) score_[i][u] = -math::kInfinity;
        top = fmaxf(top, score_[i][u]);
      }
      rebase(i, top, factor);
#pragma unroll
      for (int u = 0; u < G::kAtOnce; ++u) {
        score_[i][u] = power<T>((score_[i][u] - base_of(top)) * factor);
        total_[i] += score_[i][u];
      }
    }
  }

  // Adds the values; they have then been used.
  IGF_DEVICE void gather() {
#pragma unroll
    for (int u = 0; u < G::kAtOnce; ++u) {
      float value[kElements];
      unpack_row(value, value_[u]);
#pragma unroll
      for (int i = 0; i < G::kQueries; ++i) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) sum_[i][e] = fmaf(score_[i][u], value[e], sum_[i][e]);
      }
    }
  }

  // lost: some page was not in the cache.
  IGF_DEVICE void leave(const Launch& a, const Work& work, const WarpSums& warps, bool lost) {
    const int warp = thread_x() / kWarp;
#pragma unroll
    for (int i = 0; i < G::kQueries; ++i) {
      if constexpr (G::kGroups == 2) join_groups(i, factor_of<T>(a));
      if (i >= work.queries || lane_index() >= G::kLanes) continue;
      if (lane_index() == 0) {
        warps.tops[warp * G::kQueries + i] = top_[i];
        warps.totals[warp * G::kQueries + i] = lost ? __builtin_nanf("") : total_[i];
      }
      float* const sums = warps.sums + (warp * G::kQueries + i) * width_;
#pragma unroll
      for (int v = 0; v < G::kVectors; ++v) {
        float part[G::kAccess];
#pragma unroll
        for (int e = 0; e < G::kAccess; ++e) part[e] = sum_[i][v * G::kAccess + e];
        if (element(v) < width_) store_lanes<float, G::kAccess>(sums + element(v), part);
      }
    }
  }

 private:
  static_assert(G::kGroups <= 2);
  static constexpr int kElements = G::kAccess * G::kVectors;  // of a row, in one lane
  struct Row {
    Held<T, G::kAccess> held[G::kVectors];
  };

  IGF_DEVICE int index(int u) const { return u * G::kGroups + lane_index() / G::kLanes; }
  IGF_DEVICE int element(int v) const { return (v * G::kLanes + lane_index() % G::kLanes) * G::kAccess; }

  IGF_DEVICE void load_row(Row& row, const T* from IGF_SITE_PARAMETER) const {
    using Piece = Held<T, G::kAccess>;
#pragma unroll
    for (int v = 0; v < G::kVectors; ++v) {
      if (element(v) < width_) row.held[v] = load_once(reinterpret_cast<const Piece*>(from + element(v)) IGF_SITE);
    }
  }
  IGF_DEVICE void store_row(T* to, const Row& row IGF_SITE_PARAMETER) const {
    using Piece = Held<T, G::kAccess>;
#pragma unroll
    for (int v = 0; v < G::kVectors; ++v) {
      if (element(v) < width_) store(reinterpret_cast<Piece*>(to + element(v)), row.held[v] IGF_SITE);
    }
  }
  static IGF_DEVICE void unpack_row(float (&values)[kElements], const Row& row) {
#pragma unroll
    for (int v = 0; v < G::kVectors; ++v) {
      float part[G::kAccess];
      unpack_held<T>(part, row.held[v]);
#pragma unroll
      for (int e = 0; e < G::kAccess; ++e) values[v * G::kAccess + e] = part[e];
    }
  }
  IGF_DEVICE void load_rows(Row (&rows)[G::kAtOnce], const Store<T>& from, const Step& step IGF_SITE_PARAMETER) {
#pragma unroll
    for (int u = 0; u < G::kAtOnce; ++u) {
      const int slot = shuffle(step.slots, index(u), kAllLanes IGF_SITE);
      rows[u] = {};
      if (step.plain) {
        load_row(rows[u], from.slot(slot) IGF_SITE);
      } else if (slot >= 0) {
        load_row(rows[u], from.at(step.token + index(u), slot) IGF_SITE);
      }
    }
  }

  // Sees what there is from a larger top.
  IGF_DEVICE void rebase(int i, float top, float factor) {
    const float shrunk = power<T>((top_[i] - base_of(top)) * factor);
    top_[i] = top;
    total_[i] *= shrunk;
#pragma unroll
    for (int e = 0; e < kElements; ++e) sum_[i][e] *= shrunk;
  }

  // The two halves of the warp have met different positions.
  IGF_DEVICE void join_groups(int i, float factor IGF_SITE_PARAMETER) {
    constexpr int kOther = kWarp / 2;
    rebase(i, fmaxf(top_[i], shuffle_xor(top_[i], kOther, kAllLanes IGF_SITE)), factor);
    total_[i] += shuffle_xor(total_[i], kOther, kAllLanes IGF_SITE);
#pragma unroll
    for (int e = 0; e < kElements; ++e) sum_[i][e] += shuffle_xor(sum_[i][e], kOther, kAllLanes IGF_SITE);
  }

  const int width_;
  Store<T> keys_, values_;
  float query_[G::kQueries][kElements];
  int own_[G::kQueries];  // tokens
  Row key_[G::kAtOnce], value_[G::kAtOnce];
  float score_[G::kQueries][G::kAtOnce];
  float top_[G::kQueries];
  float total_[G::kQueries] = {};
  float sum_[G::kQueries][kElements] = {};
};

template <typename G>
IGF_KERNEL(kThreads, 2) attention_decode_general(Launch a) {
  IGF_SHARED_ARRAY(float, sums, kWarps * G::kQueries * G::kWidest);
  IGF_SHARED_ARRAY(float, tops, kWarps * G::kQueries);
  IGF_SHARED_ARRAY(float, totals, kWarps * G::kQueries);
  using T = typename G::T;
  static_assert(kMostSplits <= kWarps * 64, "weights of splits take the place of sums");
  const Work work = work_of(a);
  GeneralWarp<G> warp(a, work);
  const Share share = share_of<G::kStep>(a, work);
  if (work.split >= share.active) return;
  if (!share.valid) return give_nan<T>(a, work);

  Steps<G::kStep> steps(a, work, share);
  Step step = steps.next();
  warp.load_keys(step);
  warp.load_values(step);
  while (steps.has(step)) {
    const Step next = steps.next();
    if (step.token + G::kStep > 0) warp.append(a, work, step);
    warp.score();
    warp.load_keys(next);
    warp.soften(a, step.token, !all_see<G::kStep>(a, work, step.token));
    warp.gather();
    warp.load_values(next);
    step = next;
  }
  const WarpSums left{sums, tops, totals};
  warp.leave(a, work, left, steps.lost());
  finish<T, G::kQueries, Plain>(a, work, share.active, static_cast<int>(a.call.shape.width), left);
}

}  // namespace igf::decode
