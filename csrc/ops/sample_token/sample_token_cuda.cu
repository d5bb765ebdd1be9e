// sample_token on CUDA devices.
//
// Work     a row by one block. One pass over the logits finds the largest score, the sum of exponentials and, where nothing
//          is cut away, the race's winner; then several blocks may share a row, and the last block of the launch joins
//          what they found. Top-k and top-p find their threshold by histograms (sample_token_select.cuh), list what is
//          left and let it run.
// Memory   bytes a row: e for each logit of size e, 8 for each token of the history, 16 for seed and position, 20 for
//          parameters of its own (per block), 12 written. A row that shared memory holds is read once whatever is asked of it; a
//          longer one is read again, from the second-level cache, by each pass after the first.
// Numbers  every choice is computed as sample_token.h says, in any order with the same result. The sum of exponentials, of
//          which only the log-probability is made, is f32 in a thread and f64 beyond, in a fixed order, with the
//          hardware's exponential.
// Bound    reading: 134 MB for 512 rows of 131,072 bf16, 31 us at 4.3 TB/s; about 20 instructions a token where nothing is
//          cut, of which ten make the random numbers, bound a multiprocessor at nearly the same. Not measured.
// Limits   at most 2^30 tokens, 2^18 with a history. A row with a cut is one block's work, also at batch 1.
// Source   sample_token.h; histograms by digits after Alabi, Blanchard, Gordon, Steinbach 2012, "Fast k-selection
//          algorithms for graphics processing units"; the sum that follows the maximum after Milakov and Gimelshein 2018,
//          arXiv:1805.02867.
#include <algorithm>
#include <cmath>

#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "ops/sample_token/sample_token_cuda.h"
#include "ops/sample_token/sample_token_select.cuh"

namespace igf {
namespace {

using namespace sampling;

constexpr int kWordsOfStanding = 8;
constexpr uint32_t kSettled = 2;  // beside `bad`: the row's result has been written
constexpr int64_t kLeastSlice = 1024;
constexpr int64_t kMostSlices = 16;
constexpr int64_t kChunkBytes = 16 << 10;
constexpr int64_t kLeastListed = 1024;
constexpr int64_t kOtherShared = 4096;  // no less than the kernels' static arrays and the launch's alignment take

constexpr int kSmallVocabulary = 2048;  // served by 128 threads

IGF_DEVICE void write_standing(uint32_t* place, const Standing& s, uint32_t flags IGF_SITE_PARAMETER) {
  const uint64_t key = __builtin_bit_cast(uint64_t, s.best.key);
  const uint64_t total = __builtin_bit_cast(uint64_t, s.total);
  using Four = Vector<uint32_t, 4>;
  store(reinterpret_cast<Four*>(place),
        Four{{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), __builtin_bit_cast(uint32_t, s.best.score),
              s.best.token}} IGF_SITE);
  store(reinterpret_cast<Four*>(place) + 1, Four{{static_cast<uint32_t>(total), static_cast<uint32_t>(total >> 32),
                                                   __builtin_bit_cast(uint32_t, s.largest), s.bad | flags}} IGF_SITE);
}

IGF_DEVICE Standing read_standing(const uint32_t* place IGF_SITE_PARAMETER) {
  using Four = Vector<uint32_t, 4>;
  const Four a = load_shared_by_blocks(reinterpret_cast<const Four*>(place) IGF_SITE);
  const Four b = load_shared_by_blocks(reinterpret_cast<const Four*>(place) + 1 IGF_SITE);
  const uint64_t key = static_cast<uint64_t>(a.lanes[1]) << 32 | a.lanes[0];
  const uint64_t total = static_cast<uint64_t>(b.lanes[1]) << 32 | b.lanes[0];
  return {{__builtin_bit_cast(double, key), __builtin_bit_cast(float, a.lanes[2]), a.lanes[3]},
          __builtin_bit_cast(double, total), __builtin_bit_cast(float, b.lanes[2]), b.lanes[3]};
}

IGF_DEVICE bool has_meaning(const Standing& s) { return s.bad == 0 && s.total > 0.0 && s.largest < kInfinity; }

// By one thread.
IGF_DEVICE void write_result(const SampleTokenArguments& a, int64_t row, const Standing& s IGF_SITE_PARAMETER) {
  const bool good = has_meaning(s);
  const double gap = static_cast<double>(s.best.score) - static_cast<double>(s.largest);
  const double logprob = gap - ::log(s.total);
  store(a.tokens + row, good ? static_cast<int64_t>(s.best.token) : int64_t{-1} IGF_SITE);
  store(a.logprobs + row, good ? static_cast<float>(logprob) : __builtin_nanf("") IGF_SITE);
}

// The bits of the tokens in the row's history, in marks[0, words); true where a token is beyond the vocabulary.
template <int kThreads>
IGF_DEVICE bool mark(const SampleTokenArguments& a, int64_t row, uint32_t* marks, int words IGF_SITE_PARAMETER) {
  for (int i = thread_x(); i < words; i += kThreads) marks[i] = 0;
  block_barrier();  // no bit is set
  bool bad = false;
  for (int64_t i = thread_x(); i < a.history_length; i += kThreads) {
    const int64_t token = load(a.history + row * a.history_length + i IGF_SITE);
    bad |= token >= a.vocab;
    if (token >= 0 && token < a.vocab) atomic_or(marks + token / 32, 1u << (token % 32) IGF_SITE);
  }
  return bad;
}

// One pass over a row: its standing as far as this thread has read it, with the best of all tokens where `cut` is false.
template <typename T, int kThreads>
IGF_DEVICE Standing survey(Row<T, kThreads>& row, const Stream& stream, bool greedy, bool cut IGF_SITE_PARAMETER) {
  Standing mine{kNobody, 0.0, kLowest, 0};
  float total = 0.0f;
  Runner favourite = kNobody;
  Race race(stream);
  row.visit([&](const float (&scores)[4], const float (&logits)[4], uint32_t token, int turn) {
    const float top = fmaxf(fmaxf(scores[0], scores[1]), fmaxf(scores[2], scores[3]));
    if (top > mine.largest) {
      total *= fast_exp(mine.largest - top);
      mine.largest = top;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      mine.bad |= logits[k] < kInfinity ? 0u : 1u;
      total += fast_exp(scores[k] - mine.largest);
    }
    if (greedy) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint32_t place = token + static_cast<uint32_t>(kTileBlocks * ((k + turn) % 4));
        if (scores[k] > favourite.score || (scores[k] == favourite.score && place < favourite.token)) {
          favourite.score = scores[k];
          favourite.token = place;
        }
      }
    } else if (!cut) {
      race.run(scores, token, turn IGF_SITE);
    }
  } IGF_SITE);
  mine.total = static_cast<double>(total);
  favourite.key = static_cast<double>(favourite.score);
  mine.best = greedy ? favourite : race.best();
  return mine;
}

// What the cuts leave of a row, run.
template <typename T, int kThreads>
IGF_DEVICE Runner cut_and_race(Row<T, kThreads>& row, const Bench& bench, const Launch& a, const Controls& controls,
                               const Stream& stream, const Standing& all, float thread_largest IGF_SITE_PARAMETER) {
  Field<T, kThreads> field(row, bench, all.largest, a.listed);
  Kept kept{-kInfinity, controls.least_gap};
  const bool by_rank = controls.top_k > 0 && controls.top_k < a.call.vocab;
  for (int step = by_rank ? 0 : 1; step < (controls.top_p < 1.0f ? 2 : 1); ++step) {  // 0: top-k, 1: top-p
    const uint64_t count = step == 0 ? static_cast<uint64_t>(controls.top_k) : 0;
    uint32_t last_bin = kBins<kThreads> - 1;
    if (step == 0 && count <= kThreads) {
      // The largest scores of k threads are in the bins up to where k is reached: so are the k largest of all.
      add(bench, bin_of<kBins<kThreads>>(thread_largest, all.largest), 1 IGF_SITE);
      last_bin = crossing<kThreads>(bench, count, 1.0f IGF_SITE).bin;
    } else if (step == 1 && !by_rank) {
      const float gap = lightest_gap(controls.top_p, static_cast<float>(all.total), a.call.vocab);
      last_bin = bin_of<kBins<kThreads>>(all.largest + gap, all.largest);
      last_bin += last_bin < kBins<kThreads> - 1 ? 1 : 0;
    }
    kept.least_score = field.threshold(count, controls.top_p, kept.least_score, last_bin IGF_SITE);
  }
  return field.race(stream, kept IGF_SITE);
}

// Joins what the blocks of each row have found: by the launch's last block, a warp for a row.
template <int kThreads>
IGF_DEVICE void join_slices(const Launch& a IGF_SITE_PARAMETER) {
  for (int64_t row = thread_x() / kWarp; row < a.call.rows; row += kThreads / kWarp) {
    Standing mine{kNobody, 0.0, kLowest, 0};
    if (lane_index() < a.slices) {
      mine = read_standing(a.partials + (row * a.slices + lane_index()) * kWordsOfStanding IGF_SITE);
    }
    const Standing all = gathered_by_warp(mine IGF_SITE);
    if (lane_index() == 0 && (all.bad & kSettled) == 0) write_result(a.call, row, all IGF_SITE);
  }
}

template <typename T, int kThreads>
IGF_KERNEL(kThreads, 512 / kThreads)
sample_token_rows(Launch a) {
  IGF_SHARED_ARRAY(float, parameters, kParameters);
  IGF_SHARED_ARRAY(int64_t, origin, 2);  // seed, position
  IGF_SHARED_ARRAY(Standing, surveyed, kThreads / kWarp);
  IGF_SHARED_ARRAY(Standing, raced, kThreads / kWarp);
  IGF_SHARED_ARRAY(uint64_t, warp_totals, kThreads / kWarp);
  IGF_SHARED_ARRAY(uint32_t, found, 3);
  IGF_SHARED_ARRAY(uint32_t, listed_count, 1);
  IGF_DYNAMIC_SHARED(bytes);
  uint32_t* const words = reinterpret_cast<uint32_t*>(bytes);
  uint32_t* const list = words + 2 * kBins<kThreads>;
  const Bench bench{words,       words + kBins<kThreads>, reinterpret_cast<float*>(list), list + a.listed,
                    warp_totals, found,                   listed_count};
  uint32_t* const marks = list + 2 * a.listed;
  T* const cache = reinterpret_cast<T*>(marks + a.marks);
  const int64_t row = block_x() / a.slices;                   // [0, rows)
  const int slice = static_cast<int>(block_x() % a.slices);  // [0, slices)

  if (thread_x() < kParameters) {
    parameters[thread_x()] = a.call.parameters == nullptr
                                 ? a.call.shared_parameters[thread_x()]
                                 : load(a.call.parameters + row * a.call.parameter_stride + thread_x());
  }
  if (thread_x() == 0) {
    origin[0] = load(a.call.seeds + row);
    origin[1] = load(a.call.positions + row);
  }
  clear(bench);
  const bool lost = a.marks != 0 && mark<kThreads>(a.call, row, marks, a.marks);
  block_barrier();  // parameters, origin and marks are set, bins are 0
  Controls controls{};
  const bool valid = read_controls(parameters, controls);
  const Stream stream = stream_of(origin[0], origin[1]);
  const bool by_rank = controls.top_k > 0 && controls.top_k < a.call.vocab;
  const bool cut = valid && !controls.greedy && (by_rank || controls.top_p < 1.0f || controls.least_gap > -kInfinity);

  // A row with a cut is the first slice's; the others have nothing to add.
  const int vocab = static_cast<int>(a.call.vocab);
  const int begin = cut ? 0 : slice * a.slice;
  const int end = cut || vocab - begin < a.slice ? vocab : begin + a.slice;
  if (!cut || slice == 0) {
    Row<T, kThreads> tokens(static_cast<const T*>(a.call.logits) + row * a.call.vocab, begin, end, a.chunk, cache,
                            a.marks != 0 ? marks : nullptr, controls);
    Standing mine = survey(tokens, stream, controls.greedy, cut);
    mine.bad |= lost || !valid ? 1u : 0u;
    Standing all = gathered_by_block<kThreads>(mine, surveyed);
    if (cut && has_meaning(all)) {
      mine.best = cut_and_race(tokens, bench, a, controls, stream, all, mine.largest);
      all.best = gathered_by_block<kThreads>(mine, raced).best;
    }
    if (thread_x() == 0) {
      if (cut || a.slices == 1) write_result(a.call, row, all);
      if (a.slices > 1) {
        write_standing(a.partials + block_x() * kWordsOfStanding, all, cut ? kSettled : 0);
      }
    }
  } else if (thread_x() == 0) {
    write_standing(a.partials + block_x() * kWordsOfStanding, {kNobody, 0.0, kLowest, 0}, kSettled);
  }
  if (a.slices > 1 && is_last_block(a.arrivals, static_cast<uint32_t>(grid_x()))) join_slices<kThreads>(a);
}

struct Plan {
  int64_t slice, slices;
};

Plan slices_of(const SampleTokenArguments& a, const DeviceContext& context) {
  const int64_t idle = context.multiprocessors / std::max<int64_t>(a.rows, 1);
  const int64_t wanted = std::clamp<int64_t>(std::min(idle, a.vocab / kLeastSlice), 1, kMostSlices);
  const int64_t slice = ceil_div(ceil_div(a.vocab, wanted), kTile) * kTile;
  return {slice, ceil_div(a.vocab, slice)};
}

template <typename T, int kThreads>
void start(const SampleTokenArguments& a, uint32_t* partials, int64_t marks, int64_t chunk, int64_t listed,
           const DeviceContext& context) {
  const Plan plan = slices_of(a, context);
  const Launch launched{a,
                        partials,
                        context.arrivals,
                        static_cast<int32_t>(plan.slice),
                        static_cast<int32_t>(plan.slices),
                        static_cast<int32_t>(chunk),
                        static_cast<int32_t>(listed),
                        static_cast<int32_t>(marks)};
  const int64_t bytes = 4 * (2 * kBins<kThreads> + 2 * listed + marks) + (chunk + kVectorLanes<T>) * sizeof(T);
  launch("sample_token_rows", &sample_token_rows<T, kThreads>, {a.rows * plan.slices, 1, kThreads, 1, bytes}, context,
         launched);
}

// Where a row fits into shared memory it is read once, and the list takes what is left.
template <typename T>
void choose(const SampleTokenArguments& a, uint32_t* partials, const DeviceContext& context) {
  const int64_t marks = a.history_length == 0 ? 0 : ceil_div(a.vocab, 128) * 4;  // a multiple of 16 bytes
  const int64_t whole = ceil_div(a.vocab, kTile) * kTile;
  const int64_t room = context.shared_bytes - kOtherShared - 4 * marks - (whole + kVectorLanes<T>) * sizeof(T);
  const auto listed = [&](int threads) { return std::min<int64_t>((room - 32 * threads) / 32 * 4, 4096); };  // 8 bytes
  if (a.vocab <= kSmallVocabulary) {
    start<T, 128>(a, partials, marks, whole, whole, context);
  } else if (listed(512) >= kLeastListed) {
    start<T, 512>(a, partials, marks, whole, listed(512), context);
  } else {
    start<T, 256>(a, partials, marks, kChunkBytes / sizeof(T), kLeastListed, context);
  }
}

}  // namespace

int64_t sample_token_partial_words(const SampleTokenArguments& a, const DeviceContext& context) {
  const Plan plan = slices_of(a, context);
  return plan.slices == 1 ? 0 : a.rows * plan.slices * kWordsOfStanding;
}

void sample_token_cuda(const SampleTokenArguments& a, uint32_t* partials, const DeviceContext& context) {
  if (a.rows == 0) return;
  switch (a.element) {
    case Element::kFloat: return choose<float>(a, partials, context);
    case Element::kBfloat16: return choose<device::bfloat16>(a, partials, context);
    case Element::kHalf: return choose<device::half>(a, partials, context);
  }
}

}  // namespace igf
