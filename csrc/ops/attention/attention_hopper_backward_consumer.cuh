// The warpgroups that multiply in the backward pass on sm_90a. One step is 64 keys of a warpgroup (128 of the block)
// against one tile of queries; S = scale * q k^T, here transposed, a row a key:
//
//   S^T = K Q^T, dP^T = V dO^T         operands in shared memory; sums in registers
//   P^T = exp2(log2(e) S^T - lse2), dS^T = P^T (dP^T - delta)   rounded to T in registers, as fragments of A
//   dV += P^T dO, dK += dS^T Q         A from registers: neither P nor dS^T passes through memory
//   dQ = dS K                          over all 128 keys: dS of both warpgroups meets in shared memory
//
// Between a product's issue and its wait other work goes on: exponentials under dP^T, the meeting of the warpgroups
// under dV, dQ's way out under dK.
#pragma once

#include <cmath>

#include "device/fast_math.cuh"
#include "ops/attention/attention_hopper_backward_plan.cuh"

namespace igf::attention {

namespace hopper_backward {

namespace ptx = device::ptx;

constexpr int kScoresWritten = 1;  // named barrier of all consumers
constexpr int kTailsCleared = 2;

// Who a consumer thread is. Of a product's 64 rows it has 16 warp + lane / 4 and that + 8, of each 8 columns
// 2 (lane % 4) and the next.
struct Consumer {
  int group;  // [0, 2)
  int warp;   // [0, 4) of the warpgroup
  int lane;

  IGF_DEVICE int thread() const { return (group * 4 + warp) * device::kWarp + lane; }  // [0, 256)
  IGF_DEVICE int row(int half) const { return 16 * warp + lane / 4 + 8 * half; }
  IGF_DEVICE int column(int j, int i) const { return 8 * j + 2 * (lane % 4) + i; }
};

// sums = rows columns^T, the product summing over the width: 64 rows of a tile of keys from `first` on, all of a tile
// of queries. Committed, not waited for.
template <typename Plan>
IGF_DEVICE void multiply_over_width(float (&sums)[Plan::kQueries / 2], const unsigned char* keys, int first,
                                    const unsigned char* queries) {
  const uint64_t a = k_major<typename Plan::KeyTile>(keys, first);
  const uint64_t b = k_major<typename Plan::QueryTile>(queries);
  ptx::hold(sums);
  ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < Plan::kWidth / 16; ++s) {
    ptx::wgmma<typename Plan::T, Plan::kQueries>(sums, ptx::wgmma_advance(a, k_step<typename Plan::KeyTile>(s)),
                                                 ptx::wgmma_advance(b, k_step<typename Plan::QueryTile>(s)), s > 0);
  }
  ptx::wgmma_commit();
}

// sums += a^T queries, where a is 64 keys by kQueries in fragments: dV from P^T and dO, dK from dS^T and Q.
template <typename Plan>
IGF_DEVICE void multiply_over_queries(float (&sums)[Plan::kWidth / 2], uint32_t (&a)[Plan::kQueries / 16][4],
                                      const unsigned char* queries) {
  const uint64_t b = mn_major<typename Plan::QueryTile>(queries);
#pragma unroll
  for (int s = 0; s < Plan::kQueries / 16; ++s) {
    ptx::wgmma<typename Plan::T, Plan::kWidth, true>(sums, a[s], ptx::wgmma_advance(b, mn_step(s)), true);
  }
  ptx::wgmma_commit();
}

// sums = dS K, the warpgroup's part of dQ: other queries, or other columns, than the other one's.
template <typename Plan>
IGF_DEVICE void multiply_over_keys(float (&sums)[kPartFloats / 128], const unsigned char* scores,
                                   const unsigned char* keys, int part) {
  using ScoreTile = typename Plan::ScoreTile;
  const uint64_t a = k_major<ScoreTile>(scores, Plan::kPartsByQueries ? part * kPartQueries : 0);
  const uint64_t b = mn_major<typename Plan::KeyTile>(keys, Plan::kPartsByQueries ? 0 : part);
#pragma unroll
  for (int s = 0; s < kBackwardKeys / 16; ++s) {
    ptx::wgmma<typename Plan::T, kPartColumns, false, true>(sums, ptx::wgmma_advance(a, k_step<ScoreTile>(s)),
                                                            ptx::wgmma_advance(b, mn_step(s)), s > 0);
  }
  ptx::wgmma_commit();
}

// Which queries see a thread's two keys: bit 2 j + i of visible[half] is the element of row(half) and column(j, i).
struct Visible {
  uint32_t bits[2];

  IGF_DEVICE bool sees(int j, int half, int i) const { return (bits[half] >> (2 * j + i) & 1) != 0; }
};

// The lowest bits: as many as the thread has columns below `column`.
IGF_DEVICE uint32_t bits_below(int column, const Consumer& me) {
  const int past = column - me.column(0, 0);
  if (past <= 0) return 0;
  const int count = past / 8 * 2 + (past % 8 < 2 ? past % 8 : 2);
  return count >= 32 ? ~0u : (1u << count) - 1;
}

IGF_DEVICE Visible visible_queries(const Sight& sight, const Consumer& me, int first_query, int q_count,
                                   int first_key) {
  Visible visible;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = first_key + me.row(half);
    const uint32_t before = bits_below(sight.first_query(key) - first_query, me);
    const uint32_t until = bits_below(sight.end_query(key + 1, q_count) - first_query, me);
    visible.bits[half] = key < sight.k_count ? until & ~before : 0;
  }
  return visible;
}

// Replaces what no query sees, whatever it is: rows beyond a sequence may hold anything.
template <int kCount>
IGF_DEVICE void hide(float (&values)[kCount], const Visible& visible, float hidden) {
#pragma unroll
  for (int e = 0; e < kCount; ++e) values[e] = visible.sees(e / 4, e % 4 / 2, e % 2) ? values[e] : hidden;
}

// P from scores, in place.
template <typename Plan>
IGF_DEVICE void probabilities(float (&p)[Plan::kQueries / 2], const float* lse2, float scale2, const Consumer& me) {
  using Pair = device::Vector<float, 2>;
#pragma unroll
  for (int j = 0; j < Plan::kQueries / 8; ++j) {
    const Pair lse = device::load(reinterpret_cast<const Pair*>(lse2 + me.column(j, 0)));
#pragma unroll
    for (int e = 0; e < 4; ++e) p[4 * j + e] = device::fast_exp2(p[4 * j + e] * scale2 - lse.lanes[e % 2]);
  }
}

// Fragments of P^T and of dS^T = P^T (dP^T - delta).
template <typename Plan>
IGF_DEVICE void score_gradients(uint32_t (&p_fragments)[Plan::kQueries / 16][4],
                                uint32_t (&ds_fragments)[Plan::kQueries / 16][4], const float (&p)[Plan::kQueries / 2],
                                const float (&dp)[Plan::kQueries / 2], const float* delta, const Consumer& me) {
  using Pair = device::Vector<float, 2>;
#pragma unroll
  for (int j = 0; j < Plan::kQueries / 8; ++j) {
    const Pair row = device::load(reinterpret_cast<const Pair*>(delta + me.column(j, 0)));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int e = 4 * j + 2 * half, s = j / 2, m = j % 2 * 2 + half;
      p_fragments[s][m] = ptx::pack_pair<typename Plan::T>(p[e], p[e + 1]);
      ds_fragments[s][m] = ptx::pack_pair<typename Plan::T>(p[e] * (dp[e] - row.lanes[0]),
                                                            p[e + 1] * (dp[e + 1] - row.lanes[1]));
    }
  }
}

// dS^T in fragments becomes rows of queries in shared memory. Matrix m of a fragment is 8 keys by 8 queries, and leaves
// transposed: lane 8 m + r points to row r of it, which is a query.
template <typename Plan>
IGF_DEVICE void write_scores(unsigned char* scores, const uint32_t (&ds)[Plan::kQueries / 16][4], const Consumer& me) {
  const int m = me.lane / 8, r = me.lane % 8;
  const int key = 64 * me.group + 16 * me.warp + 8 * (m % 2);
  unsigned char* const first = scores + piece_offset<typename Plan::ScoreTile>(8 * (m / 2) + r, key);
#pragma unroll
  for (int s = 0; s < Plan::kQueries / 16; ++s) ptx::stmatrix<4, true>(first + s * 2 * kSwizzleBlock, ds[s]);
  ptx::proxy_fence_shared();
}

// A part of dQ to where a warp of the producers takes it from, in the workspace's order.
template <typename Plan>
IGF_DEVICE void write_sums(unsigned char* place, const float (&dq)[kPartFloats / 128], const Consumer& me) {
  const int columns = Plan::part_columns(me.group) / 8;
  float* const row_group = reinterpret_cast<float*>(place) + me.warp * columns * 128;
#pragma unroll
  for (int j = 0; j < kPartColumns / 8; ++j) {
    if (j < columns) {
#pragma unroll
      for (int e = 0; e < 4; ++e) row_group[(4 * j + e) * device::kWarp + me.lane] = dq[4 * j + e];
    }
  }
  ptx::proxy_fence_shared();
}

// Fragments that a product reads must be there at the fence before it, and may not be replaced before it was waited for.
template <int kCount>
IGF_DEVICE void hold_fragments(uint32_t (&fragments)[kCount][4]) {
#pragma unroll
  for (int s = 0; s < kCount; ++s) ptx::hold(fragments[s]);
}

// dK or dV of the warpgroup's keys, by its own warp's 16 rows through shared memory: rows of 16-byte pieces, only those
// that the sequence has. Eight lanes together take eight pieces with all banks, from as many rows as that asks for.
template <typename Plan>
IGF_DEVICE void store_gradient(const float (&sums)[Plan::kWidth / 2], float factor, unsigned char* place,
                               typename Plan::T* out, int64_t row_stride, int rows, const Consumer& me) {
  using T = typename Plan::T;
  using GradientTile = typename Plan::GradientTile;
  const int m = me.lane / 8, r = me.lane % 8;
#pragma unroll
  for (int s = 0; s < Plan::kWidth / 16; ++s) {
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs[i] = ptx::pack_pair<T>(sums[8 * s + 2 * i] * factor, sums[8 * s + 2 * i + 1] * factor);
    }
    const int row = 16 * me.warp + 8 * (m % 2) + r;
    ptx::stmatrix<4>(place + piece_offset<GradientTile>(row, 16 * s + 8 * (m / 2)), pairs);
  }
  device::warp_barrier();  // what the warp's lanes wrote, before they read one another's
#pragma unroll
  for (int panel = 0; panel < GradientTile::kPanels; ++panel) {
    constexpr int kLast = (Plan::kWidth - 1) % kPanelColumns / 8 + 1;
    const int pieces = panel + 1 < GradientTile::kPanels ? 8 : kLast;  // of a row of the panel: 8, 4 or 2
#pragma unroll
    for (int at = 0; at < pieces / 2; ++at) {
      const int i = at * device::kWarp + me.lane;  // [0, 16 pieces)
      const int step = i / pieces % 8 * pieces;
      const int row = 16 * me.warp + i / pieces / 8 * 8 + step % 8 + step / 8;
      const int column = panel * kPanelColumns + i % pieces * 8;
      using Piece = device::Packed<T>;
      const Piece piece = device::load(reinterpret_cast<const Piece*>(place + piece_offset<GradientTile>(row, column)));
      if (row < rows) device::store(reinterpret_cast<Piece*>(out + row * row_stride + column), piece);
    }
  }
  device::warp_barrier();  // their reads, before the place is written again
}

// What a consumer keeps over all tiles of queries.
template <typename Plan>
struct Gradients {
  float dk[Plan::kWidth / 2];
  float dv[Plan::kWidth / 2];
};

// Fragments of P^T and dS^T against one tile of queries; dS is written to shared memory too.
template <typename Plan>
IGF_DEVICE void step_scores(const HopperBackward& a, const BackwardItem& item, const BackwardPlaces<Plan>& places,
                            const Consumer& me, const Ring<kBackwardStages>& ring, int tile,
                            uint32_t (&p_fragments)[Plan::kQueries / 16][4],
                            uint32_t (&ds_fragments)[Plan::kQueries / 16][4]) {
  using QueryTile = typename Plan::QueryTile;
  constexpr int kQueries = Plan::kQueries;
  BackwardBarriers& barriers = *places.barriers;
  const int first_query = tile * kQueries;
  const int first_key = item.at.tile * kBackwardKeys + 64 * me.group;  // the warpgroup's
  unsigned char* const queries = places.queries(ring.stage);
  unsigned char* const dout = places.dout(ring.stage);

  ptx::mbarrier_wait(&barriers.queries_full[ring.stage], ring.parity);
  if (a.batch.cu_seqlens != nullptr && first_query + kQueries > item.at.q_count) {
    ptx::mbarrier_wait(&barriers.dout_full[ring.stage], ring.parity);
    const int valid = item.at.q_count - first_query;
    zero_rows<QueryTile>(queries, valid, me.thread(), kBackwardConsumers);
    zero_rows<QueryTile>(dout, valid, me.thread(), kBackwardConsumers);
    ptx::named_barrier_sync(kTailsCleared, kBackwardConsumers);  // the zeros of all, before anyone multiplies them
  }
  float p[kQueries / 2], dp[kQueries / 2];
  multiply_over_width<Plan>(p, places.keys(), 64 * me.group, queries);
  ptx::mbarrier_wait(&barriers.dout_full[ring.stage], ring.parity);
  multiply_over_width<Plan>(dp, places.values(), 64 * me.group, dout);

  const Sight sight = sight_of(a.shape, item.at);
  const bool masked = first_query + kQueries > item.at.q_count ||
                      !sight.all_see(first_query, first_query + kQueries, first_key, first_key + 64);
  Visible visible{};
  if (masked) visible = visible_queries(sight, me, first_query, item.at.q_count, first_key);
  ptx::wgmma_wait<1>();
  ptx::hold(p);
  if (masked) hide(p, visible, -INFINITY);
  probabilities<Plan>(p, places.lse2 + ring.stage * kQueries, a.scale2, me);
  ptx::wgmma_wait<0>();
  ptx::hold(dp);
  if (masked) hide(dp, visible, 0.0f);
  score_gradients<Plan>(p_fragments, ds_fragments, p, dp, places.delta + ring.stage * kQueries, me);
  // The buffer was read two steps ago by products that their warpgroups waited for before the last step's barrier.
  write_scores<Plan>(places.scores(ring.stage), ds_fragments, me);
}

// One step; see the head. With two stages, the stage is also the number of steps before, modulo 2: so it tells dS's
// buffers apart, and is the parity of the phases of dQ's place.
template <typename Plan>
IGF_DEVICE void backward_step(const HopperBackward& a, const BackwardItem& item, const BackwardPlaces<Plan>& places,
                              const Consumer& me, const Ring<kBackwardStages>& ring, int tile,
                              Gradients<Plan>& sums) {
  static_assert(kBackwardStages == 2);
  BackwardBarriers& barriers = *places.barriers;
  uint32_t p_fragments[Plan::kQueries / 16][4], ds_fragments[Plan::kQueries / 16][4];
  step_scores(a, item, places, me, ring, tile, p_fragments, ds_fragments);
  ptx::hold(sums.dv);
  hold_fragments(p_fragments);
  ptx::wgmma_fence();
  multiply_over_queries<Plan>(sums.dv, p_fragments, places.dout(ring.stage));
  ptx::named_barrier_sync(kScoresWritten, kBackwardConsumers);  // dS of both warpgroups, before either multiplies it
  float dq[kPartFloats / 128];
  ptx::hold(dq);
  ptx::hold(sums.dk);
  hold_fragments(ds_fragments);
  ptx::wgmma_fence();
  multiply_over_keys<Plan>(dq, places.scores(ring.stage), places.keys(), me.group);
  multiply_over_queries<Plan>(sums.dk, ds_fragments, places.queries(ring.stage));
  ptx::wgmma_wait<1>();
  ptx::hold(dq);
  ptx::mbarrier_wait(&barriers.sums_empty[me.group], ring.stage ^ 1);  // the last part has left; at once at first
  write_sums<Plan>(places.sums(me.group), dq, me);
  meet_and_arrive(&barriers.sums_full[me.group]);
  // The next S^T behind this dK would spare a pause, but sums under way around the loop make ptxas 13.0 serialise all.
  ptx::wgmma_wait<0>();
  ptx::hold(sums.dv);
  ptx::hold(sums.dk);
  hold_fragments(p_fragments);
  hold_fragments(ds_fragments);
  meet_and_arrive(&barriers.empty[ring.stage]);
}

// Both leave through the place of dQ's part, which was taken from there.
template <typename Plan>
IGF_DEVICE void store_gradients(const HopperBackward& a, const BackwardItem& item, const BackwardPlaces<Plan>& places,
                                const Consumer& me, const Gradients<Plan>& sums) {
  using T = typename Plan::T;
  const int first = item.at.tile * kBackwardKeys + 64 * me.group;
  const int rows = item.at.k_count - first;  // that the warpgroup has, if above 0
  const auto rows_of = [&](const AttentionView<void>& view) {
    return static_cast<T*>(view.data) + (item.at.k_begin + first) * view.row_stride + item.kv_head * view.head_stride;
  };
  unsigned char* const place = places.sums(me.group);
  store_gradient<Plan>(sums.dv, 1.0f, place, rows_of(a.dv), a.dv.row_stride, rows, me);
  store_gradient<Plan>(sums.dk, a.shape.scale, place, rows_of(a.dk), a.dk.row_stride, rows, me);
}

}  // namespace hopper_backward

// All that a warpgroup of consumers does for an item.
template <typename Plan>
IGF_DEVICE void multiply_backward_tiles(const HopperBackward& a, const BackwardItem& item,
                                        const BackwardPlaces<Plan>& places, int group) {
  using namespace hopper_backward;
  const Consumer me{group, device::shuffle(device::thread_x() / device::kWarp % 4, 0), device::lane_index()};
  Gradients<Plan> sums;
#pragma unroll
  for (int i = 0; i < Plan::kWidth / 2; ++i) sums.dk[i] = sums.dv[i] = 0.0f;

  if (item.first_tile < item.end_tile) {
    ptx::mbarrier_wait(&places.barriers->keys, 0);
    const int keys = item.at.k_count - item.at.tile * kBackwardKeys;
    if (a.batch.cu_seqlens != nullptr && keys < kBackwardKeys) {
      // dS is 0 there, but 0 times another sequence's NaN is not. V needs no zeros: its rows are not summed over.
      zero_rows<typename Plan::KeyTile>(places.keys(), keys, me.thread(), kBackwardConsumers);
      ptx::named_barrier_sync(kTailsCleared, kBackwardConsumers);  // the zeros of all, before anyone multiplies them
    }
    Ring<kBackwardStages> ring;
    for (int member = 0; member < item.group; ++member) {
      for (int tile = item.end_tile - 1; tile >= item.first_tile; --tile) {
        backward_step(a, item, places, me, ring, tile, sums);
        ring.advance();
      }
    }
    ptx::mbarrier_wait(&places.barriers->sums_empty[group], ring.stage ^ 1);  // the last part of dQ has left
  }
  store_gradients(a, item, places, me, sums);
}

}  // namespace igf::attention
