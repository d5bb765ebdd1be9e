// Generalised advantage estimation on CUDA devices: each row a scan from its end, by a warp or a block.
//
// Work     a token maps the advantage A behind it to delta + gamma lambda A, an uncounted one leaves A as it is; such
//          maps compose to (b, d): A -> b + d A. A thread composes its four tokens, a warp its lanes' maps by shuffles,
//          the block its warps' maps in shared memory; then each thread runs the recursion itself over its tokens. The
//          values behind a thread's tokens are found first, in the same two steps.
//          Rows of more than 512 threads' tokens go tile by tile from the end, the next tile on its way while one is
//          scanned.
// Memory   9 bytes read and 8 written a token; shaped from log-probabilities 13 and 16, and 4 a row. 2048 x 2048 tokens:
//          71 MB. Limit: memory bandwidth; 36 bytes in flight a thread, 1,536 threads or more a multiprocessor.
//          Accesses of 16 bytes, of the mask 4.
// Numbers  f32. The order of operations within a row depends on its length alone, and on `vectors`.
// Limits   rows that are not whole groups of four, and pointers off their boundary, go one token a thread: as coalesced,
//          in a quarter of the width, with four times the shuffles.
// Source   as in gae.h; the scan is that of any linear recurrence (Blelloch 1990, "Prefix sums and their applications").
#include "device/fours.cuh"
#include "device/launch.cuh"
#include "ops/gae/gae.h"

namespace igf {
namespace {

using namespace device;

// Rows of one block: eight warps share a block when a row needs only one.
template <int kThreads>
constexpr int kRowsPerBlock = kThreads == kWarp ? 8 : 1;

// A thread's kTokens neighbouring tokens. What does not exist does not count.
template <int kTokens>
struct Tokens {
  float rewards[kTokens];  // shaped: the penalties
  float kl[kTokens];       // shaped alone
  float values[kTokens];
  bool counted[kTokens];
};

template <int kTokens>
IGF_DEVICE void load_tokens(float (&values)[kTokens], const float* place IGF_SITE_PARAMETER) {
  if constexpr (kTokens == 4) {
    load_vector_once(values, place, 0 IGF_SITE);
  } else {
    values[0] = load_once(place IGF_SITE);
  }
}

template <int kTokens>
IGF_DEVICE void store_tokens(float* place, const float (&values)[kTokens] IGF_SITE_PARAMETER) {
  if constexpr (kTokens == 4) {
    store_vector(place, 0, values IGF_SITE);
  } else {
    store(place, values[0] IGF_SITE);
  }
}

template <bool kShaped, int kTokens>
IGF_DEVICE Tokens<kTokens> tokens_at(const GaeArguments& a, int64_t row, int64_t column) {
  Tokens<kTokens> tokens;
  const int64_t place = row * a.columns + column;
  const bool exists = column >= 0 && column < a.columns;
#pragma unroll
  for (int i = 0; i < kTokens; ++i) tokens.counted[i] = false;
  if (!exists) return tokens;
  if constexpr (kShaped) {
    float reference[kTokens];
    load_tokens(tokens.kl, a.logprobs + place);
    load_tokens(reference, a.ref_logprobs + place);
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      tokens.kl[i] -= reference[i];
      tokens.rewards[i] = tokens.kl[i] * -a.kl_coef;
    }
  } else {
    load_tokens(tokens.rewards, a.rewards + place);
  }
  load_tokens(tokens.values, a.values + place);
  if constexpr (kTokens == 4) {
    load_four_flags(tokens.counted, a.mask + place, {0, 4, true});
  } else {
    tokens.counted[0] = load_once(a.mask + place) != 0;
  }
  return tokens;
}

// What lies behind some tokens: whether a counted one does, the value of the next one, the advantage there.
struct Behind {
  bool more;
  float value;
  float advantage;
};

// A -> b + d A, what some tokens make of the advantage behind them. d is a power of gamma lambda, in two floats: the
// powers of a float are no floats, and their errors would all point the same way.
struct Map {
  float b, d, d_low;
};

IGF_DEVICE float applied(Map map, float advantage) {
  return fmaf(map.d, advantage, fmaf(map.d_low, advantage, map.b));
}

IGF_DEVICE Map after(Map left, Map right) {
  const float d = left.d * right.d;
  const float lost = fmaf(left.d, right.d, -d);
  return {applied(left, right.b), d, fmaf(left.d, right.d_low, fmaf(left.d_low, right.d, lost))};
}

IGF_DEVICE Map shuffled(Map map, int source IGF_SITE_PARAMETER) {
  return {shuffle(map.b, source, kAllLanes IGF_SITE), shuffle(map.d, source, kAllLanes IGF_SITE),
          shuffle(map.d_low, source, kAllLanes IGF_SITE)};
}

IGF_DEVICE Map shuffled_down(Map map, int delta IGF_SITE_PARAMETER) {
  return {shuffle_down(map.b, delta, kAllLanes IGF_SITE), shuffle_down(map.d, delta, kAllLanes IGF_SITE),
          shuffle_down(map.d_low, delta, kAllLanes IGF_SITE)};
}

// What the warps of a block tell each other, a place each.
struct Exchange {
  float* values;  // of each warp's first counted token
  int* counted;   // whether it has one
  Map* maps;
};

// The tokens from right to left, each from what lies behind it; with kWrite their results go to memory.
template <bool kShaped, bool kWrite, int kTokens>
IGF_DEVICE Map recursion(const GaeArguments& a, const Tokens<kTokens>& tokens, Behind behind, int64_t place) {
  float advantages[kTokens], returns[kTokens], kl[kTokens], rewards[kTokens];
  Map power{0.0f, 1.0f, 0.0f};
#pragma unroll
  for (int i = kTokens - 1; i >= 0; --i) {
    const bool counted = tokens.counted[i];
    const float delta = fmaf(a.gamma, behind.value, tokens.rewards[i]) - tokens.values[i];
    const float advantage = fmaf(a.decay, behind.advantage, delta);
    advantages[i] = counted ? advantage : 0.0f;
    returns[i] = counted ? advantage + tokens.values[i] : 0.0f;
    if constexpr (kShaped) {
      kl[i] = counted ? tokens.kl[i] : 0.0f;
      rewards[i] = counted ? tokens.rewards[i] : 0.0f;
    }
    behind.value = counted ? tokens.values[i] : behind.value;
    behind.advantage = counted ? advantage : behind.advantage;
    if (counted) power = after({0.0f, a.decay, 0.0f}, power);
  }
  if constexpr (kWrite) {
    store_tokens(a.advantages + place, advantages);
    store_tokens(a.returns + place, returns);
    if constexpr (kShaped) {
      store_tokens(a.kl + place, kl);
      store_tokens(a.shaped + place, rewards);
    }
  }
  return {behind.advantage, power.d, power.d_low};
}

// The first lane of a vote, lane 0 of none; the votes of the lanes behind a place.
IGF_DEVICE int first_lane(uint32_t votes) { return votes == 0 ? 0 : find_first_bit(votes) - 1; }
IGF_DEVICE uint32_t votes_behind(uint32_t votes, int place) { return votes & (0xfffffffeu << place); }

// The composition of the maps of a lane and of all `lanes` - 1 lanes behind it.
IGF_DEVICE Map map_from_here(Map map, int lanes, int lane) {
  for (int delta = 1; delta < lanes; delta *= 2) {
    const Map next = shuffled_down(map, delta);
    if (lane + delta < kWarp) map = after(map, next);
  }
  return map;
}

// One tile of a row; `behind` is what lies behind the tile, and with kLoops becomes what lies behind the tile before it.
template <bool kShaped, bool kLoops, int kThreads, int kTokens>
IGF_DEVICE void scan_tile(const GaeArguments& a, Tokens<kTokens>& tokens, int64_t row, int64_t column, Behind& behind,
                          const Exchange& exchange) {
  constexpr int kWarps = kThreads / kWarp;
  const int warp = thread_x() / kWarp;  // [0, kWarps)
  const int lane = thread_x() % kWarp;

  bool any = false;
  float first_value = 0.0f;  // of this thread's first counted token; below of the warp's, of the tile's
#pragma unroll
  for (int i = kTokens - 1; i >= 0; --i) {
    any = any || tokens.counted[i];
    first_value = tokens.counted[i] ? tokens.values[i] : first_value;
  }
  uint32_t votes = ballot(any);  // below of the warps
  const uint32_t nearer = votes_behind(votes, lane);
  const float nearer_value = shuffle(first_value, first_lane(nearer));
  Behind here = behind;  // behind this thread's tokens; its advantage follows later
  first_value = shuffle(first_value, first_lane(votes));
  if constexpr (kWarps > 1) {
    if (lane == 0) {
      exchange.values[warp] = first_value;
      exchange.counted[warp] = votes != 0 ? 1 : 0;
    }
    block_barrier();  // every warp's first value is there
    votes = ballot(lane < kWarps && exchange.counted[lane % kWarps] != 0);
    const float warp_value = exchange.values[lane % kWarps];  // of warp number `lane`
    const uint32_t warps = votes_behind(votes, warp);
    const float value = shuffle(warp_value, first_lane(warps));
    here = {here.more || warps != 0, warps != 0 ? value : here.value, 0.0f};
    first_value = shuffle(warp_value, first_lane(votes));
  }
  here = {here.more || nearer != 0, nearer != 0 ? nearer_value : here.value, 0.0f};
  if constexpr (kShaped) {
    bool more = here.more;
#pragma unroll
    for (int i = kTokens - 1; i >= 0; --i) {
      if (tokens.counted[i] && !more) tokens.rewards[i] += load(a.scores + row);
      more = more || tokens.counted[i];
    }
  }

  const int64_t place = row * a.columns + column;
  Map map = map_from_here(recursion<kShaped, false>(a, tokens, here, place), kWarp, lane);
  Map lanes = shuffled_down(map, 1);  // behind this one
  if (lane == kWarp - 1) lanes = {0.0f, 1.0f, 0.0f};
  map = shuffled(map, 0);              // the warp's, below the tile's
  float advantage = behind.advantage;  // behind this warp
  if constexpr (kWarps > 1) {
    if (lane == 0) exchange.maps[warp] = map;
    block_barrier();  // every warp's map is there; the values have been read, and the next tile may write its own
    map = lane < kWarps ? exchange.maps[lane] : Map{0.0f, 1.0f, 0.0f};
    map = map_from_here(map, kWarps, lane);
    advantage = applied(shuffled(map, warp + 1), advantage);  // lane kWarps holds the map of none
    map = shuffled(map, 0);
  }
  here.advantage = applied(lanes, advantage);
  if (column < a.columns) recursion<kShaped, true>(a, tokens, here, place);
  if constexpr (kLoops) {
    behind = {behind.more || votes != 0, votes != 0 ? first_value : behind.value, applied(map, behind.advantage)};
  }
}

// A row by kThreads threads; with kLoops it has any number of tiles, else one.
template <bool kShaped, bool kLoops, int kThreads, int kTokens>
IGF_KERNEL(kThreads * kRowsPerBlock<kThreads>)
gae_rows(GaeArguments a) {
  constexpr int kWarps = kThreads / kWarp;
  constexpr int64_t kTile = kThreads * kTokens;
  static_assert(kWarps < kWarp, "scan_tile keeps a lane for the map of no warp");
  IGF_SHARED_ARRAY(float, values, kWarps);
  IGF_SHARED_ARRAY(int, counted, kWarps);
  IGF_SHARED_ARRAY(Map, maps, kWarps);
  const Exchange exchange{values, counted, maps};
  const int64_t row = block_x() * kRowsPerBlock<kThreads> + thread_y();  // [0, rows)
  if (row >= a.rows) return;  // only whole warps leave: a block with several rows has no barrier

  Behind behind{false, 0.0f, 0.0f};
  if constexpr (kLoops) {
    int64_t column = (a.columns - 1) / kTile * kTile + thread_x() * kTokens;  // of the last tile
    Tokens<kTokens> next = tokens_at<kShaped, kTokens>(a, row, column);
    for (; column >= 0; column -= kTile) {
      Tokens<kTokens> tokens = next;
      next = tokens_at<kShaped, kTokens>(a, row, column - kTile);  // on their way while this tile is scanned
      scan_tile<kShaped, true, kThreads>(a, tokens, row, column, behind, exchange);
    }
  } else {
    const int64_t column = thread_x() * kTokens;
    Tokens<kTokens> tokens = tokens_at<kShaped, kTokens>(a, row, column);
    scan_tile<kShaped, false, kThreads>(a, tokens, row, column, behind, exchange);
  }
}

template <bool kShaped, bool kLoops, int kThreads, int kTokens>
void start(const GaeArguments& a, const DeviceContext& context) {
  constexpr int kRows = kRowsPerBlock<kThreads>;
  launch("gae_rows", &gae_rows<kShaped, kLoops, kThreads, kTokens>, {ceil_div(a.rows, kRows), 1, kThreads, kRows},
         context, a);
}

template <bool kShaped, int kTokens>
void start(const GaeArguments& a, const DeviceContext& context) {
  const int64_t threads = ceil_div(a.columns, kTokens);
  if (threads <= 32) return start<kShaped, false, 32, kTokens>(a, context);
  if (threads <= 128) return start<kShaped, false, 128, kTokens>(a, context);
  if (threads <= 256) return start<kShaped, false, 256, kTokens>(a, context);
  if (threads <= 512) return start<kShaped, false, 512, kTokens>(a, context);
  start<kShaped, true, 256, kTokens>(a, context);
}

}  // namespace

void gae_forward_cuda(const GaeArguments& a, const DeviceContext& context) {
  if (a.rows == 0 || a.columns == 0) return;
  if (a.rewards != nullptr) {
    a.vectors ? start<false, 4>(a, context) : start<false, 1>(a, context);
  } else {
    a.vectors ? start<true, 4>(a, context) : start<true, 1>(a, context);
  }
}

}  // namespace igf
