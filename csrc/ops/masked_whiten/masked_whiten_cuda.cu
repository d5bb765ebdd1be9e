// Whitening on CUDA devices in one launch: blocks read their elements once and keep them until the moments of all are
// known.
//
// Work     tiles of 4,096 elements; blocks draw spans of one to four tiles from a counter, keep the span in shared memory
//          and publish its tiles' moments. Who publishes the last adds all moments in order and raises a flag; the
//          others wait for it, then everyone whitens what it keeps.
//          Only a running block draws work, and so nobody waits for a block that has not started: the launch ends
//          however few of its blocks run at the same time. A block that draws again (more elements than the device's
//          shared memory keeps, or blocks that come late) leaves its earlier span on a list and reads it again at the
//          end.
// Memory   4 + 1 bytes read and 4 written an element, as long as there are at most four tiles for each of three blocks a
//          multiprocessor (6.4 million elements on 132); beyond that 5 more for what is read again. 24 bytes a tile are
//          written and read. 2048 x 2048 elements: 38 MB. Limit: memory bandwidth, 80 bytes in flight a thread; for less
//          than a million elements the way from the first read over the flag to the last write.
// Numbers  within a tile f32 differences from the tile's own mean, a thread's sixteen added in f32, the threads' sums in
//          double; tiles in double in order. The order depends neither on who drew a tile nor on the alignment.
// Limits   counted elements differ by less than 1e18 from their tile's mean, else a square overflows.
// Source   as in masked_whiten.h.
#include <algorithm>

#include "device/fours.cuh"
#include "device/launch.cuh"
#include "device/reductions.cuh"
#include "ops/masked_whiten/masked_whiten.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kGroups = 4;  // of four elements, of a thread, in a tile
constexpr int kTile = kThreads * kGroups * 4;
constexpr int kSpanTiles = 4;  // most tiles of a span
constexpr int kBlocksPerMultiprocessor = 3;
constexpr int kNone = -1;
constexpr int64_t kKeptBytes = kSpanTiles * (kTile + kThreads) * 4;
static_assert(kSpanTiles * kWarps == kWarp, "write_moments gives every warp of every tile of a span a lane");

// The launch's counters, zero before and after it.
enum Counter { kDrawn, kPublished, kReady, kLeft };
static_assert(kLeft < kArrivalCounters);

struct Plan {
  int tiles;
  int spans;
  int span_tiles;  // [1, kSpanTiles]
  uint32_t* counters;
};

// Shared memory of a block. Of kept elements and flags every thread touches its own alone.
struct Shared {
  float* kept;      // [kSpanTiles][kGroups][kThreads][4]
  uint32_t* flags;  // [kSpanTiles][kThreads]: bit 4 g + i says whether element i of group g counts
  float* sums;      // [kSpanTiles][kWarps]
  float* counts;
  double* differences;  // from the tile's mean
  double* squares;      // of these
};

IGF_DEVICE bool counts(uint32_t flags, int group, int i) { return (flags >> (4 * group + i) & 1u) != 0; }

IGF_DEVICE Four four_of(const MaskedWhitenArguments& a, int tile, int group) {
  return four_at(static_cast<int64_t>(tile) * kTile + (group * kThreads + thread_x()) * 4, a.count, a.aligned);
}

IGF_DEVICE uint32_t read_tile(const MaskedWhitenArguments& a, int tile, float (&x)[kGroups][4]) {
  uint32_t flags = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const Four at = four_of(a, tile, g);
    bool counted[4];
    load_four(x[g], a.x, at);
    load_four_flags(counted, a.mask, at);
#pragma unroll
    for (int i = 0; i < 4; ++i) flags |= counted[i] ? 1u << (4 * g + i) : 0u;
  }
  return flags;
}

IGF_DEVICE int kept_place(int place, int group) { return (place * kGroups + group) * kThreads + thread_x(); }

// The total of a tile's warps, in the kWarps lanes from kWarps * tile on.
template <typename T>
IGF_DEVICE T of_warps(const T* values) {
  T total = values[lane_index()];
#pragma unroll
  for (int mask = kWarps / 2; mask > 0; mask /= 2) total += shuffle_xor(total, mask);
  return total;
}

// Reads a span into shared memory and writes, for each of its tiles, how many elements count, their mean, and the sum of
// their squared differences from it.
IGF_DEVICE void keep_span(const MaskedWhitenArguments& a, const Plan& plan, int span, const Shared& shared) {
  const int warp = thread_x() / kWarp;  // [0, kWarps)
  for (int t = 0; t < plan.span_tiles; ++t) {
    float x[kGroups][4];
    const uint32_t flags = read_tile(a, span * plan.span_tiles + t, x);
    shared.flags[t * kThreads + thread_x()] = flags;
    float sum = 0.0f;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      store_vector(shared.kept, kept_place(t, g), x[g]);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum += counts(flags, g, i) ? x[g][i] : 0.0f;
    }
    sum = warp_sum(sum);
    const float count = warp_sum(static_cast<float>(count_bits(flags)));
    if (lane_index() == 0) {
      shared.sums[t * kWarps + warp] = sum;
      shared.counts[t * kWarps + warp] = count;
    }
  }
  block_barrier();  // every warp's sums are there

  // Of tile number lane / kWarps: its count, and its mean to the precision of a float, from which differences are small.
  const float count = of_warps(shared.counts);
  const float sum = of_warps(shared.sums);
  const float mean = count > 0.0f ? sum / count : 0.0f;
  for (int t = 0; t < plan.span_tiles; ++t) {
    const float centre = shuffle(mean, t * kWarps);
    const uint32_t flags = shared.flags[t * kThreads + thread_x()];
    float sums[kGroups], square_sums[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float x[4];
      load_vector(x, shared.kept, kept_place(t, g));
      sums[g] = square_sums[g] = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float apart = counts(flags, g, i) ? x[i] - centre : 0.0f;
        sums[g] += apart;
        square_sums[g] += apart * apart;
      }
    }
    const double differences = warp_sum(static_cast<double>((sums[0] + sums[1]) + (sums[2] + sums[3])));
    const double squares =
        warp_sum(static_cast<double>((square_sums[0] + square_sums[1]) + (square_sums[2] + square_sums[3])));
    if (lane_index() == 0) {
      shared.differences[t * kWarps + warp] = differences;
      shared.squares[t * kWarps + warp] = squares;
    }
  }
  block_barrier();  // every warp's differences are there

  if (warp != 0) return;
  const double differences = of_warps(shared.differences);
  const double squares = of_warps(shared.squares);
  const int place = lane_index() / kWarps;  // of the tile in the span
  const int tile = span * plan.span_tiles + place;
  if (lane_index() % kWarps != 0 || place >= plan.span_tiles || tile >= plan.tiles) return;
  const double apart = count > 0.0f ? differences / static_cast<double>(count) : 0.0;  // the exact mean from `mean`
  store(a.moments + tile, static_cast<double>(count));
  store(a.moments + plan.tiles + tile, static_cast<double>(mean) + apart);
  store(a.moments + 2 * plan.tiles + tile, squares - differences * apart);
}

// Adds the moments of all tiles and says how to whiten; by the block that published last.
IGF_DEVICE void merge_moments(const MaskedWhitenArguments& a, int tiles, double* doubles) {
  const double* counts = a.moments;
  const double* means = counts + tiles;
  const double* squares = means + tiles;
  double first[2] = {0.0, 0.0};  // count, sum
  for (int tile = thread_x(); tile < tiles; tile += kThreads) {
    const double count = load_shared_by_blocks(counts + tile);
    first[0] += count;
    first[1] += count * load_shared_by_blocks(means + tile);
  }
  row_sum<kThreads>(first, doubles);
  const double mean = first[0] > 0.0 ? first[1] / first[0] : 0.0;
  double second[1] = {0.0};
  for (int tile = thread_x(); tile < tiles; tile += kThreads) {
    const double apart = load_shared_by_blocks(means + tile) - mean;
    second[0] += load_shared_by_blocks(squares + tile) + load_shared_by_blocks(counts + tile) * apart * apart;
  }
  row_sum<kThreads>(second, doubles);
  if (thread_x() != 0) return;
  const double variance = first[0] > 0.0 ? second[0] / first[0] : 0.0;
  const float high = static_cast<float>(mean);
  // The mean in two floats: subtracting both loses nothing that float input holds.
  const Packed<float> scale{{high, static_cast<float>(mean - static_cast<double>(high)),
                             static_cast<float>(1.0 / sqrt(variance + a.eps)), a.shift_mean ? 0.0f : high}};
  store(reinterpret_cast<Packed<float>*>(a.scale), scale);
}

IGF_DEVICE void write_group(const MaskedWhitenArguments& a, const Four& at, const float (&x)[4], uint32_t flags, int group,
                            const Packed<float>& scale) {
  float y[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float centred = (x[i] - scale.lanes[0]) - scale.lanes[1];
    y[i] = counts(flags, group, i) ? centred * scale.lanes[2] + scale.lanes[3] : 0.0f;
  }
  store_four(a.y, at, y);
}

// Whitens the span that is kept, then those that are read again.
IGF_DEVICE void write_spans(const MaskedWhitenArguments& a, const Plan& plan, int kept, int earlier,
                            const Shared& shared) {
  const Packed<float> scale = load_shared_by_blocks(reinterpret_cast<const Packed<float>*>(a.scale));
  for (int t = 0; t < plan.span_tiles; ++t) {
    const uint32_t flags = shared.flags[t * kThreads + thread_x()];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float x[4];
      load_vector(x, shared.kept, kept_place(t, g));
      write_group(a, four_of(a, kept * plan.span_tiles + t, g), x, flags, g, scale);
    }
  }
  for (; earlier != kNone; earlier = load(a.earlier + earlier) - 1) {
    for (int t = 0; t < plan.span_tiles; ++t) {
      const int tile = earlier * plan.span_tiles + t;
      float x[kGroups][4];
      const uint32_t flags = read_tile(a, tile, x);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) write_group(a, four_of(a, tile, g), x[g], flags, g, scale);
    }
  }
}

// The block has drawn its last span. The last one of the launch puts the counters back for the next.
IGF_DEVICE void leave(uint32_t* counters) {
  if (thread_x() != 0) return;
  if (atomic_add(counters + kLeft, 1u) != static_cast<uint32_t>(grid_x()) - 1) return;
  atomic_exchange(counters + kDrawn, 0u);
  atomic_exchange(counters + kPublished, 0u);
  atomic_exchange(counters + kReady, 0u);
  atomic_exchange(counters + kLeft, 0u);
}

IGF_KERNEL(kThreads, kBlocksPerMultiprocessor)
masked_whiten_spans(MaskedWhitenArguments a, Plan plan) {
  constexpr int kPlaces = kSpanTiles * kWarps;
  IGF_DYNAMIC_SHARED(kept_bytes);
  IGF_SHARED_ARRAY(float, floats, 2 * kPlaces);
  IGF_SHARED_ARRAY(double, doubles, 2 * kPlaces);
  IGF_SHARED_ARRAY(uint32_t, news, 2);  // the span drawn, the spans published before
  float* kept = reinterpret_cast<float*>(kept_bytes);
  const Shared shared{kept,   reinterpret_cast<uint32_t*>(kept + kSpanTiles * kTile), floats, floats + kPlaces, doubles,
                      doubles + kPlaces};
  if (thread_x() < 2 * kPlaces) floats[thread_x()] = 0.0f;  // for the places beyond a span's tiles
  if (thread_x() == 0) news[0] = atomic_add(plan.counters + kDrawn, 1u);
  block_barrier();  // the first span is known
  int span = static_cast<int>(news[0]);
  if (span >= plan.spans) return leave(plan.counters);

  int mine = kNone;     // the span that is kept
  int earlier = kNone;  // the last of those that are not kept any more, each of which names the one before it
  while (span > mine && span < plan.spans) {  // draws grow, and a counter that does not must not keep the block for ever
    if (mine != kNone) {
      if (thread_x() == 0) store(a.earlier + mine, earlier + 1);
      earlier = mine;
    }
    mine = span;
    keep_span(a, plan, mine, shared);
    block_barrier();  // the moments are written ...
    if (thread_x() == 0) {
      device_fence();  // ... and precede the count, as every block sees them
      news[1] = atomic_add(plan.counters + kPublished, 1u);
      news[0] = atomic_add(plan.counters + kDrawn, 1u);
      device_fence();  // the others' moments precede what this block reads from here on
    }
    block_barrier();  // the news are there
    span = static_cast<int>(news[0]);
    if (news[1] == static_cast<uint32_t>(plan.spans) - 1) {
      merge_moments(a, plan.tiles, doubles);
      if (thread_x() == 0) {
        device_fence();  // the scale precedes the flag
        atomic_exchange(plan.counters + kReady, 1u);
      }
    }
  }

  if (thread_x() == 0) {
    while (atomic_or(plan.counters + kReady, 0u) == 0) let_others_run();
    device_fence();  // the scale precedes what this block reads from here on
  }
  block_barrier();  // the scale is known, and the list is written
  write_spans(a, plan, mine, earlier, shared);
  leave(plan.counters);
}

}  // namespace

int64_t masked_whiten_tiles(int64_t count) { return ceil_div(count, kTile); }

void masked_whiten_forward_cuda(const MaskedWhitenArguments& a, const DeviceContext& context) {
  if (a.count == 0) return;
  const int tiles = static_cast<int>(masked_whiten_tiles(a.count));
  const int64_t resident = static_cast<int64_t>(context.multiprocessors) * kBlocksPerMultiprocessor;
  const int span_tiles = static_cast<int>(std::min<int64_t>(ceil_div(tiles, resident), kSpanTiles));
  const int spans = static_cast<int>(ceil_div(tiles, span_tiles));
  launch("masked_whiten_spans", &masked_whiten_spans, {std::min<int64_t>(spans, resident), 1, kThreads, 1, kKeptBytes},
         context, a, Plan{tiles, spans, span_tiles, context.arrivals});
}

}  // namespace igf
