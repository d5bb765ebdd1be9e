// Decoding on the tensor cores: 16 queries of a row and key head at a time, keys and values from memory to registers.
//
// Work     a warp takes steps of 16 positions. S = Q K^T and O += P V by mma.m16n8k16. Sums over the width and over the
//          positions may be made in any order, and so a lane loads 16 neighbouring bytes and calls them what the
//          instruction wants to have there: 8 elements of a key, of which four lanes hold a row, are those that it has in
//          two products; 8 elements of four values are a column of eight products, paired by moving halves of words. So
//          keys and values go from memory to registers, no thread waits for another one before the end, and each byte
//          is asked for once, in whole sectors.
// Overlap  the next step's keys are asked for when this step's scores are made, its values when this step's sums are:
//          so one to two steps are under way for each warp, without registers for a second one.
// Bound    memory. A step of width 64 costs a warp about 300 instructions, 24 of them products: 75 cycles of a
//          multiprocessor, and 230 until memory at 4.1 TB/s has brought the 4 KB of the next one. On CUDA cores the
//          conversions, products and shuffles of one query would take 180 instructions in place of the 100 that matrix
//          products, pairs and softmax do here, and each further query 110: so bf16 and f16 come here always, though one
//          query uses a sixteenth of a product. Not measured.
// Numbers  probabilities are rounded to T for the second product, as in the other attention kernels.
// Memory   shared: the warps' sums, 16 width floats each, in whose place their queries lie until then, so that registers
//          for more blocks are left.
#pragma once

#include "device/ptx.cuh"
#include "ops/attention_decode/attention_decode_merge.cuh"

namespace igf::decode {

constexpr int kMmaTile = 16;
constexpr int kMmaStep = 16;

// Blocks of a multiprocessor that registers must be left for: 128 registers a thread for four, 168 for three, which width
// 96 passes by a few on sm_100. Bytes under way = blocks * 4 warps * 16 positions * 4 width: 64 KB at width 64, 61 KB at
// 80, 49 KB at 96, 64 KB at 128; 4.1 TB/s at 0.8 us want 25 KB of each of 132 multiprocessors.
template <int kWidth>
constexpr int kMmaBlocks = kWidth <= 64 ? 4 : kWidth <= 80 ? 3 : 2;

// How kSharers lanes hold a row of kWidth elements of 16 bits: pieces of 8 elements for each, then what is left.
template <int kWidth, int kSharers>
struct Spread {
  static constexpr int kPiece = 8 * kSharers;
  static constexpr int kPieces = kWidth / kPiece;
  static constexpr int kRest = kWidth % kPiece / kSharers;  // elements of a lane
  static constexpr int kWords = kWidth / kSharers / 2;      // of a lane
  static_assert(kRest % 2 == 0 && kWidth % (2 * kSharers) == 0);

  template <typename T>
  static IGF_DEVICE void load(uint32_t (&words)[kWords], const T* row, int lane IGF_SITE_PARAMETER) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const auto four = load_once(reinterpret_cast<const Vector<uint32_t, 4>*>(row + p * kPiece + 8 * lane) IGF_SITE);
#pragma unroll
      for (int w = 0; w < 4; ++w) words[4 * p + w] = four.lanes[w];
    }
    if constexpr (kRest > 0) {
      using Rest = Vector<uint32_t, kRest / 2>;
      const auto rest = load_once(reinterpret_cast<const Rest*>(row + kPieces * kPiece + kRest * lane) IGF_SITE);
#pragma unroll
      for (int w = 0; w < kRest / 2; ++w) words[4 * kPieces + w] = rest.lanes[w];
    }
  }

  template <typename T>
  static IGF_DEVICE void store(T* row, const uint32_t (&words)[kWords], int lane IGF_SITE_PARAMETER) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
      const Vector<uint32_t, 4> four{{words[4 * p], words[4 * p + 1], words[4 * p + 2], words[4 * p + 3]}};
      device::store(reinterpret_cast<Vector<uint32_t, 4>*>(row + p * kPiece + 8 * lane), four IGF_SITE);
    }
    if constexpr (kRest > 0) {
      Vector<uint32_t, kRest / 2> rest;
#pragma unroll
      for (int w = 0; w < kRest / 2; ++w) rest.lanes[w] = words[4 * kPieces + w];
      device::store(reinterpret_cast<Vector<uint32_t, kRest / 2>*>(row + kPieces * kPiece + kRest * lane), rest
                    IGF_SITE);
    }
  }
};

// Where a warp's sums lie in shared memory: row by row, the four 16-byte pieces of each 16 elements exchanged by where they
// lie, so that neither the lanes that write nor those that read meet in a bank.
struct Exchanged {
  static IGF_DEVICE int at(int row, int d, int width) {
    const int piece = d / 4;
    return row * width + (piece ^ (piece >> 3 & 1) ^ (row & 1) * 3) * 4 + d % 4;
  }
};

// The lower, and the upper halves of two words.
IGF_DEVICE uint32_t lower_halves(uint32_t low, uint32_t high) { return (low & 0xffffu) | high << 16; }
IGF_DEVICE uint32_t upper_halves(uint32_t low, uint32_t high) { return low >> 16 | (high & 0xffff0000u); }

// One warp's queries, keys, values and sums. Lane l, with g = l / 4 and t = l % 4, has queries g and g + 8 of the tile,
// keys g and g + 8 of a step, spread over t, and values 2 t, 2 t + 1, 2 t + 8 and 2 t + 9, spread over g.
template <typename T, int kWidth>
class MmaWarp {
 public:
  using KeySpread = Spread<kWidth, 4>;
  using ValueSpread = Spread<kWidth, 8>;

  // sums: where this warp will leave its sums; until then its queries lie there, out of the registers' way.
  IGF_DEVICE MmaWarp(const Launch& a, const Work& work, float* sums)
      : fragments_(reinterpret_cast<Fragment*>(sums) + lane_index()), keys_(a, work, a.call.k, a.call.k_cache), values_(a, work, a.call.v, a.call.v_cache) {
    uint32_t query[2][KeySpread::kWords];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = g_ + 8 * r;
      clear(query[r]);
      if (i < work.queries) KeySpread::load(query[r], query_at<T>(a, work, i), t_);
      own_[r] = i < work.queries ? token_of(a, work, i) : 0;
    }
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
      store(fragments_ + k * kWarp,
            Fragment{{query[0][2 * k], query[1][2 * k], query[0][2 * k + 1], query[1][2 * k + 1]}});
    }
  }

  IGF_DEVICE void load_keys(const Step& step) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = g_ + 8 * n;
      const int slot = shuffle(step.slots, key);
      if (step.plain) {
        KeySpread::load(key_[n], keys_.slot(slot), t_);
      } else {
        clear(key_[n]);
        if (slot >= 0) KeySpread::load(key_[n], keys_.at(step.token + key, slot), t_);
      }
    }
  }

  IGF_DEVICE void load_values(const Step& step) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int slot = shuffle(step.slots, value_index(n));
      if (step.plain) {
        ValueSpread::load(value_[n], values_.slot(slot), g_);
      } else {
        clear(value_[n]);
        if (slot >= 0) ValueSpread::load(value_[n], values_.at(step.token + value_index(n), slot), g_);
      }
    }
  }

  // Writes those of the step's keys and values that are new, and this tile's, into the cache.
  IGF_DEVICE void append(const Launch& a, const Work& work, const Step& step) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = g_ + 8 * n;
      const int slot = shuffle(step.slots, key);
      if (slot >= 0 && step.token + key >= 0 && appends(a, work, step.token + key)) {
        KeySpread::store(keys_.slot(slot), key_[n], t_);
      }
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int value = value_index(n);
      const int slot = shuffle(step.slots, value);
      if (slot >= 0 && step.token + value >= 0 && appends(a, work, step.token + value)) {
        ValueSpread::store(values_.slot(slot), value_[n], g_);
      }
    }
  }

  // The step's scores; its keys have then been used.
  IGF_DEVICE void score() {
#pragma unroll
    for (int i = 0; i < 4; ++i) score_[0][i] = score_[1][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
      const Fragment rows = load(fragments_ + k * kWarp);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const uint32_t column[2] = {key_[n][2 * k], key_[n][2 * k + 1]};
        ptx::mma_m16n8k16<T>(score_[n], rows.lanes, column);
      }
    }
  }

  // Turns the scores into probabilities, which are rounded to T. masked: not every query sees the whole step.
  IGF_DEVICE void soften(const Launch& a, const Work& work, int token, bool masked) {
    soften_row<0>(token, masked, a.window, factor_of<T>(a));
    if (work.queries > 8) {
      soften_row<1>(token, masked, a.window, factor_of<T>(a));
    } else {
      probability_[1] = probability_[3] = 0;
    }
  }

  // Adds the values; they have then been used.
  IGF_DEVICE void gather() {
#pragma unroll
    for (int w = 0; w < ValueSpread::kWords; ++w) {
      const uint32_t lower[2] = {lower_halves(value_[0][w], value_[1][w]), lower_halves(value_[2][w], value_[3][w])};
      const uint32_t upper[2] = {upper_halves(value_[0][w], value_[1][w]), upper_halves(value_[2][w], value_[3][w])};
      ptx::mma_m16n8k16<T>(sum_[2 * w], probability_, lower);
      ptx::mma_m16n8k16<T>(sum_[2 * w + 1], probability_, upper);
    }
  }

  // lost: some page was not in the cache.
  IGF_DEVICE void leave(const Work& work, const WarpSums& warps, bool lost) {
    const int warp = thread_x() / kWarp;
    warp_barrier();  // all lanes have read the queries, whose place the sums take
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = total_[r];
      total += shuffle_xor(total, 1);
      total += shuffle_xor(total, 2);
      const int row = g_ + 8 * r;
      if (row >= work.queries) continue;
      if (t_ == 0) {
        warps.tops[warp * kMmaTile + row] = top_[r];
        warps.totals[warp * kMmaTile + row] = lost ? __builtin_nanf("") : total;
      }
      leave_row(warps.sums + warp * kMmaTile * kWidth, row, r);
    }
  }

 private:
  using Fragment = Vector<uint32_t, 4>;

  template <int kCount>
  static IGF_DEVICE void clear(uint32_t (&words)[kCount]) {
#pragma unroll
    for (int w = 0; w < kCount; ++w) words[w] = 0;
  }

  IGF_DEVICE int value_index(int n) const { return 2 * t_ + n % 2 + n / 2 * 8; }

  template <int kRow>
  IGF_DEVICE void soften_row(int token, bool masked, int window, float factor) {
    float x[4] = {score_[0][2 * kRow], score_[0][2 * kRow + 1], score_[1][2 * kRow], score_[1][2 * kRow + 1]};
    if (masked) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!sees(own_[kRow], token + value_index(i), window)) x[i] = -math::kInfinity;
      }
    }
    float top = fmaxf(fmaxf(top_[kRow], fmaxf(x[0], x[1])), fmaxf(x[2], x[3]));
    top = fmaxf(top, shuffle_xor(top, 1));
    top = fmaxf(top, shuffle_xor(top, 2));
    const float base = base_of(top) * factor;
    const float shrunk = power<T>(fmaf(top_[kRow], factor, -base));
    top_[kRow] = top;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = power<T>(fmaf(x[i], factor, -base));
      total += x[i];
    }
    total_[kRow] = total_[kRow] * shrunk + total;
    probability_[kRow] = ptx::pack_pair<T>(x[0], x[1]);
    probability_[kRow + 2] = ptx::pack_pair<T>(x[2], x[3]);
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      sum_[j][2 * kRow] *= shrunk;
      sum_[j][2 * kRow + 1] *= shrunk;
    }
  }

  // Product j has, in column c, element kPiece p + e c + j % e, where e is what a lane of values holds of piece p = j / 8.
  IGF_DEVICE void leave_row(float* sums, int row, int r) const {
#pragma unroll
    for (int p = 0; p < ValueSpread::kPieces; ++p) {
#pragma unroll
      for (int quad = 0; quad < 4; ++quad) {
        const int column = 2 * r + quad / 2, j = 8 * p + quad % 2 * 4;
        store(place(sums, row, 64 * p + 16 * t_ + 4 * quad),
              Packed<float>{{sum_[j][column], sum_[j + 1][column], sum_[j + 2][column], sum_[j + 3][column]}});
      }
    }
    constexpr int kFirst = 8 * ValueSpread::kPieces;
    if constexpr (ValueSpread::kRest == 4) {
#pragma unroll
      for (int quad = 0; quad < 2; ++quad) {
        const int column = 2 * r + quad;
        store(place(sums, row, 8 * kFirst + 8 * t_ + 4 * quad),
              Packed<float>{{sum_[kFirst][column], sum_[kFirst + 1][column], sum_[kFirst + 2][column],
                             sum_[kFirst + 3][column]}});
      }
    } else if constexpr (ValueSpread::kRest == 2) {
      store(place(sums, row, 8 * kFirst + 4 * t_),
            Packed<float>{{sum_[kFirst][2 * r], sum_[kFirst + 1][2 * r], sum_[kFirst][2 * r + 1],
                           sum_[kFirst + 1][2 * r + 1]}});
    }
  }

  static IGF_DEVICE Packed<float>* place(float* sums, int row, int d) {
    return reinterpret_cast<Packed<float>*>(sums + Exchanged::at(row, d, kWidth));
  }

  const int g_ = lane_index() / 4, t_ = lane_index() % 4;
  Fragment* const fragments_;  // of the queries, this lane's; [kWidth / 16] at distances of a warp, in shared memory
  Store<T> keys_, values_;
  int own_[2];  // tokens
  uint32_t key_[2][KeySpread::kWords];
  uint32_t value_[4][ValueSpread::kWords];
  float score_[2][4];
  uint32_t probability_[4];
  float top_[2] = {-math::kInfinity, -math::kInfinity};
  float total_[2] = {0.0f, 0.0f};  // of this lane's positions
  float sum_[kWidth / 8][4] = {};
};

template <typename T, int kWidth>
IGF_KERNEL(kThreads, kMmaBlocks<kWidth>) attention_decode_mma(Launch a) {
  IGF_SHARED_ARRAY(float, sums, kWarps * kMmaTile * kWidth);
  IGF_SHARED_ARRAY(float, tops, kWarps * kMmaTile);
  IGF_SHARED_ARRAY(float, totals, kWarps * kMmaTile);
  static_assert(kMmaTile * kMostSplits <= kWarps * kMmaTile * kWidth, "weights of splits take the place of sums");
  const Work work = work_of(a);
  MmaWarp<T, kWidth> warp(a, work, sums + thread_x() / kWarp * kMmaTile * kWidth);
  const Share share = share_of<kMmaStep>(a, work);
  if (work.split >= share.active) return;
  if (!share.valid) return give_nan<T>(a, work);

  Steps<kMmaStep> steps(a, work, share);
  Step step = steps.next();
  warp.load_keys(step);
  warp.load_values(step);
  while (steps.has(step)) {
    const Step next = steps.next();
    if (step.token + kMmaStep > 0) warp.append(a, work, step);
    warp.score();
    warp.load_keys(next);
    warp.soften(a, work, step.token, !all_see<kMmaStep>(a, work, step.token));
    warp.gather();
    warp.load_values(next);
    step = next;
  }
  const WarpSums left{sums, tops, totals};
  warp.leave(work, left, steps.lost());
  finish<T, kMmaTile, Exchanged>(a, work, share.active, kWidth, left);
}

}  // namespace igf::decode
