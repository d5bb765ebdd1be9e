// The forward kernel of sm_90a, step by step: who brings tiles, who multiplies them, and what they tell each other.
//
//   warpgroup 0   warp 0, one thread: brings queries, keys and values
//                 warp 1, one thread: draws the block's work (attention_hopper_work.cuh)
//                 warp 2: overwrites the next sequence's rows in the values of a packed batch
//   1 to 2 or 3   a consumer each: 64 queries, the products, the softmax, out
//
// barrier        whose phase ends                                      who waits
// q_full[c]      consumer c's queries have arrived                     consumer c
// q_empty[c]     its 4 warps have done the last product with them      the bringer
// k_full[s]      the keys of stage s have arrived                      consumers
// k_empty[s]     all warps of all consumers have done their product    the bringer
// v_full[s], v_empty[s]  the same of values; in a packed batch's last tile v_full is the overwriter's to end
// v_landed[s]    such a tile has arrived                               the overwriter
// work_full[r], work_empty[r]  the next item is there; all who use it have done with it
#pragma once

#include "device/launch.cuh"
#include "device/vectors.cuh"
#include "ops/attention/attention_hopper_softmax.cuh"
#include "ops/attention/attention_hopper_tiles.cuh"
#include "ops/attention/attention_hopper_work.cuh"

namespace igf::attention::hopper_forward {

using namespace device;

// The table of tile choices stands in attention_hopper_forward_cuda.cu.
template <int kWidth>
struct ForwardTiles;

template <typename Element, int kHeadWidth>
struct ForwardConfig : ForwardTiles<kHeadWidth> {
  using Tiles = ForwardTiles<kHeadWidth>;
  using T = Element;
  static constexpr int kWidth = kHeadWidth;
  static constexpr int kRows = 64 * Tiles::kConsumers;
  static constexpr int kThreads = 128 * (1 + Tiles::kConsumers);
  static constexpr int kConsumerWarps = 4 * Tiles::kConsumers;
  using Queries = Tile<64, kHeadWidth>;  // of one consumer; its part of out as well
  using Keys = Tile<Tiles::kKeys, kHeadWidth>;
  // In the dynamic block: queries of all consumers, out of all consumers, the stages of keys, those of values.
  static constexpr int kOutAt = Tiles::kConsumers * Queries::kBytes;
  static constexpr int kKeysAt = 2 * kOutAt;
  static constexpr int kValuesAt = kKeysAt + Tiles::kStages * Keys::kBytes;
  static constexpr int kSharedBytes = kValuesAt + Tiles::kStages * Keys::kBytes;
};

// Where in shared memory everything stands.
struct ForwardShared {
  unsigned char* tiles;
  WorkItem* items;
  uint64_t *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty, *v_landed, *work_full, *work_empty;
};

// Named barriers: 1 + c for consumer c alone, kTurns + c for its turn among the consumers.
constexpr int kAlone = 1;
constexpr int kTurns = 4;

// Item number `count` of the block: its place in the ring, and the parity of its phase there.
IGF_DEVICE int work_stage(int count) { return count % kWorkStages; }
IGF_DEVICE int work_parity(int count) { return count / kWorkStages % 2; }

IGF_DEVICE const WorkItem& await_work(const ForwardShared& shared, int count IGF_SITE_PARAMETER) {
  ptx::mbarrier_wait(shared.work_full + work_stage(count), work_parity(count) IGF_SITE);
  return shared.items[work_stage(count)];
}

// Tile of keys, or of values, number `count` of the block: its stage, and the parity of its phase there.
template <typename C>
IGF_DEVICE int tile_stage(int count) {
  return static_cast<unsigned>(count) % C::kStages;
}
template <typename C>
IGF_DEVICE int tile_parity(int count) {
  return static_cast<unsigned>(count) / C::kStages % 2;
}

// Warp 0: brings the tiles of every item, in the order in which the consumers want them.
template <typename C>
IGF_DEVICE void bring_tiles(const ForwardPlan& plan, const TensorMap& q, const TensorMap& k, const TensorMap& v,
                            const ForwardShared& shared) {
  const int group = static_cast<int>(plan.shape.heads / plan.shape.kv_heads);
  int tiles = 0;  // brought before this item
#pragma unroll 1
  for (int count = 0;; ++count) {
    const WorkItem& item = await_work(shared, count);
    if (item.head < 0) return;
    const int first = item.first_tile, end = item.end_tile;
    const TileOwner of_queries = tile_owner(plan.batch, item.head, item.q_begin, item.sequence);
    const TileOwner of_keys = tile_owner(plan.batch, item.head / group, item.k_begin, item.sequence);
    const int first_query = item.first_query, queries = item.q_count - first_query;
    const bool foreign = has_foreign_rows<C::kKeys>(plan, item);
    ptx::mbarrier_arrive(shared.work_empty + work_stage(count));

#pragma unroll 1
    for (int c = 0; c < C::kConsumers; ++c) {
      uint64_t* const full = shared.q_full + c;
      ptx::mbarrier_wait(shared.q_empty + c, count % 2 ^ 1);
      if (first == end || 64 * c >= queries) {
        ptx::mbarrier_arrive(full);  // nobody reads them
        continue;
      }
      ptx::mbarrier_arrive_expecting(full, C::Queries::kBytes);
      load_rows<typename C::Queries>(shared.tiles + c * C::Queries::kBytes, q, of_queries, first_query + 64 * c, full);
    }
#pragma unroll 1
    for (int i = 0; i <= end - first && end > first; ++i) {  // keys go one tile ahead of values
      if (i < end - first) {
        const int stage = tile_stage<C>(tiles + i);
        ptx::mbarrier_wait(shared.k_empty + stage, tile_parity<C>(tiles + i) ^ 1);
        ptx::mbarrier_arrive_expecting(shared.k_full + stage, C::Keys::kBytes);
        load_rows<typename C::Keys>(shared.tiles + C::kKeysAt + stage * C::Keys::kBytes, k, of_keys,
                                    (end - 1 - i) * C::kKeys, shared.k_full + stage);
      }
      if (i > 0) {
        const int stage = tile_stage<C>(tiles + i - 1);
        uint64_t* const full = (foreign && i == 1 ? shared.v_landed : shared.v_full) + stage;
        ptx::mbarrier_wait(shared.v_empty + stage, tile_parity<C>(tiles + i - 1) ^ 1);
        ptx::mbarrier_arrive_expecting(full, C::Keys::kBytes);
        load_rows<typename C::Keys>(shared.tiles + C::kValuesAt + stage * C::Keys::kBytes, v, of_keys,
                                    (end - i) * C::kKeys, full);
      }
    }
    tiles += end - first;
  }
}

// Warp 2: 0 instead of the next sequence's values, which a weight of 0 would not keep out if they are NaN.
template <typename C>
IGF_DEVICE void overwrite_foreign_rows(const ForwardPlan& plan, const ForwardShared& shared) {
  int tiles = 0;          // brought before this item
  uint32_t parities = 0;  // bit s: of v_landed[s]
#pragma unroll 1
  for (int count = 0;; ++count) {
    const WorkItem& item = await_work(shared, count);
    if (item.head < 0) return;
    if (has_foreign_rows<C::kKeys>(plan, item)) {
      const int stage = tile_stage<C>(tiles);  // the last tile comes first
      ptx::mbarrier_wait(shared.v_landed + stage, parities >> stage & 1);
      parities ^= 1u << stage;
      zero_rows<typename C::Keys>(shared.tiles + C::kValuesAt + stage * C::Keys::kBytes,
                                  item.k_count - (item.end_tile - 1) * C::kKeys, lane_index(), kWarp);
      meet_and_arrive(shared.v_full + stage);
    }
    tiles += item.end_tile - item.first_tile;
    meet_and_arrive(shared.work_empty + work_stage(count));
  }
}

// scores = q k^T of 64 queries and a tile of keys, as one group of products.
template <typename C>
IGF_DEVICE void issue_scores(float (&scores)[C::kKeys / 2], const unsigned char* queries, const unsigned char* keys) {
  const uint64_t q = k_major<typename C::Queries>(queries);
  const uint64_t k = k_major<typename C::Keys>(keys);
  ptx::hold(scores);
  ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < C::kWidth / 16; ++s) {
    ptx::wgmma<typename C::T, C::kKeys>(scores, ptx::wgmma_advance(q, k_step<typename C::Queries>(s)),
                                        ptx::wgmma_advance(k, k_step<typename C::Keys>(s)), s > 0);
  }
  ptx::wgmma_commit();
}

// out += weights v, as one group of products; the weights stay in registers.
template <typename C>
IGF_DEVICE void issue_out(float (&out)[C::kWidth / 2], uint32_t (&weights)[C::kKeys / 16][4],
                          const unsigned char* values) {
  const uint64_t v = mn_major<typename C::Keys>(values);
  ptx::hold(out);
#pragma unroll
  for (int s = 0; s < C::kKeys / 16; ++s) ptx::hold(weights[s]);
  ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < C::kKeys / 16; ++s) {
    ptx::wgmma<typename C::T, C::kWidth, true>(out, weights[s], ptx::wgmma_advance(v, mn_step(s)), true);
  }
  ptx::wgmma_commit();
}

// Takes turns: consumer c issues its products when the one before has issued its own, so that while one computes its
// softmax the tensor cores have the others' products to do.
template <typename C>
IGF_DEVICE void await_turn(int consumer) {
  if constexpr (C::kTakeTurns) ptx::named_barrier_sync(kTurns + consumer, 256);
}
template <typename C>
IGF_DEVICE void end_turn(int consumer) {
  if constexpr (C::kTakeTurns) {
    ptx::named_barrier_arrive(kTurns + (consumer + 1 == C::kConsumers ? 0 : consumer + 1), 256);
  }
}

// A consumer, and how many tiles of keys have passed it.
template <typename C>
struct Consumer {
  int number;  // [0, kConsumers)
  const ForwardShared& shared;
  int tiles = 0;

  IGF_DEVICE const unsigned char* queries() const { return shared.tiles + number * C::Queries::kBytes; }
  // Keys of the tile that is `ahead` of the one that passes, values of the tile that is `back` behind it.
  IGF_DEVICE void await_keys(int ahead) const {
    ptx::mbarrier_wait(shared.k_full + tile_stage<C>(tiles + ahead), tile_parity<C>(tiles + ahead));
  }
  IGF_DEVICE const unsigned char* keys() const {
    return shared.tiles + C::kKeysAt + tile_stage<C>(tiles) * C::Keys::kBytes;
  }
  IGF_DEVICE const unsigned char* await_values(int back) const {
    const int stage = tile_stage<C>(tiles - back);
    ptx::mbarrier_wait(shared.v_full + stage, tile_parity<C>(tiles - back));
    return shared.tiles + C::kValuesAt + stage * C::Keys::kBytes;
  }
  // After wgmma_wait, where all lanes meet.
  IGF_DEVICE void release_keys() const { arrive_as_warp(shared.k_empty + tile_stage<C>(tiles)); }
  IGF_DEVICE void release_values(int back) const { arrive_as_warp(shared.v_empty + tile_stage<C>(tiles - back)); }

  // Tiles that others of the block want and this consumer's queries do not see.
  IGF_DEVICE void pass(int count) {
#pragma unroll 1
    for (; count > 0; --count) {
      await_keys(0);
      await_turn<C>(number);
      end_turn<C>(number);
      await_values(0);
      warp_barrier();  // no lane still waits for this phase when the next one may begin
      release_keys();
      release_values(0);
      ++tiles;
    }
  }
};

// Whether some of a consumer's 64 queries do not see all keys of a tile.
template <typename C>
IGF_DEVICE bool needs_mask(const ForwardPlan& plan, const WorkItem& item, int consumer, int tile) {
  const int first_query = item.first_query + 64 * consumer, first_key = tile * C::kKeys;
  return !item.sight(plan.shape).all_see(first_query, first_query + 64, first_key, first_key + C::kKeys);
}
template <typename C>
IGF_DEVICE void mask(float (&scores)[C::kKeys / 2], const ForwardPlan& plan, const WorkItem& item, int consumer,
                     int tile) {
  const int t = thread_index() % 128;
  mask_scores<C::kKeys>(scores, item.sight(plan.shape), item.first_query + 64 * consumer + t / 32 * 16 + t % 32 / 4,
                        tile * C::kKeys + t % 4 * 2);
}

// The weighted values of a consumer's 64 queries, still to be divided by the sums: all tiles of keys of an item. The
// product of a tile's scores is issued before the softmax of the tile before it, whose product with the values runs
// beside it too.
template <typename C>
IGF_DEVICE void attend(Consumer<C>& self, const ForwardPlan& plan, const WorkItem& item, float (&out)[C::kWidth / 2],
                       SoftmaxRows& rows) {
  const int first_query = item.first_query + 64 * self.number;
  const int end_query = first_query + 64 < item.q_count ? first_query + 64 : item.q_count;
  KeyTiles mine = key_tiles(item.sight(plan.shape), first_query, end_query, C::kKeys);
  if (mine.first == mine.end) mine = {item.end_tile, item.end_tile};
  self.pass(item.end_tile - mine.end);
  if (mine.end > mine.first) {
    float scores[C::kKeys / 2], factor[2];
    uint32_t weights[C::kKeys / 16][4];
    bool masked = needs_mask<C>(plan, item, self.number, mine.end - 1);
    self.await_keys(0);
    await_turn<C>(self.number);
    issue_scores<C>(scores, self.queries(), self.keys());
    end_turn<C>(self.number);
    ptx::wgmma_wait<0>();
    ptx::hold(scores);
    self.release_keys();
    if (masked) mask<C>(scores, plan, item, self.number, mine.end - 1);
    fold_scores<C::kKeys>(scores, rows, factor, plan.scale_log2);
    pack_scores<typename C::T, C::kKeys>(weights, scores);
    ++self.tiles;

    if (mine.end - 1 > mine.first) self.await_keys(0);
#pragma unroll 1
    for (int tile = mine.end - 2; tile >= mine.first; --tile) {
      masked = needs_mask<C>(plan, item, self.number, tile);
      await_turn<C>(self.number);
      issue_scores<C>(scores, self.queries(), self.keys());
      issue_out<C>(out, weights, self.await_values(1));
      end_turn<C>(self.number);
      ptx::wgmma_wait<1>();  // the scores; out is under way
      ptx::hold(scores);
      self.release_keys();
      if (masked) mask<C>(scores, plan, item, self.number, tile);
      fold_scores<C::kKeys>(scores, rows, factor, plan.scale_log2);
      if (tile > mine.first) self.await_keys(1);
      ptx::wgmma_wait<0>();
      ptx::hold(out);
      self.release_values(1);
#pragma unroll
      for (int i = 0; i < C::kWidth / 2; ++i) out[i] *= factor[i / 2 % 2];
      pack_scores<typename C::T, C::kKeys>(weights, scores);
      ++self.tiles;
    }
    arrive_as_warp(self.shared.q_empty + self.number);
    issue_out<C>(out, weights, self.await_values(1));
    ptx::wgmma_wait<0>();
    ptx::hold(out);
    self.release_values(1);
  } else {
    meet_and_arrive(self.shared.q_empty + self.number);
  }
  self.pass(mine.first - item.first_tile);
}

// The consumer's part of out, rounded, through shared memory: by one tensor copy where that stores only its own
// sequence's rows, else row by row. One thread has made all copies, so it knows when the last one has been read.
template <typename C>
IGF_DEVICE void store_out(const ForwardPlan& plan, const ForwardShared& shared, int consumer, const WorkItem& item,
                          const TensorMap& map, const float (&out)[C::kWidth / 2]) {
  using T = typename C::T;
  using Out = typename C::Queries;
  const int t = thread_index() % 128;
  const int first_query = item.first_query + 64 * consumer;
  unsigned char* const tile = shared.tiles + C::kOutAt + consumer * Out::kBytes;
  if (t == 0) ptx::bulk_wait_read<0>();
  ptx::named_barrier_sync(kAlone + consumer, 128);  // the last item's tile has been read by everyone
  const int row = t / 32 * 16 + t % 16;  // lanes 0-15: the first 8 columns of 16, 16-31: the second; as stmatrix asks
#pragma unroll
  for (int s = 0; s < C::kWidth / 16; ++s) {
    uint32_t pairs[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) pairs[r] = ptx::pack_pair<T>(out[8 * s + 2 * r], out[8 * s + 2 * r + 1]);
    ptx::stmatrix<4>(tile + piece_offset<Out>(row, 16 * s + t % 32 / 16 * 8), pairs);
  }
  ptx::proxy_fence_shared();
  ptx::named_barrier_sync(kAlone + consumer, 128);  // the tile is written, and copies may read it
  const int count = item.q_count - first_query;     // of the consumer's rows that are the sequence's; also below 0
  if (plan.batch.cu_seqlens == nullptr || count >= 64) {
    if (t == 0 && count > 0) {
      store_rows<Out>(map, tile_owner(plan.batch, item.head, item.q_begin, item.sequence), first_query, tile);
      ptx::bulk_commit();
    }
    return;
  }
  constexpr int kPieces = 8 * Out::kPanels;  // of 16 bytes in a row, some beyond the width: 8 lanes, 8 pieces of one row
  const AttentionView<void>& view = plan.out;
  T* const to = static_cast<T*>(view.data) + (item.q_begin + first_query) * view.row_stride + item.head * view.head_stride;
#pragma unroll 1
  for (int i = t; i < count * kPieces; i += 128) {  // of the first `count` rows
    const int r = i / kPieces, column = i % kPieces * 8;
    if (column >= C::kWidth) continue;
    store(reinterpret_cast<Packed<T>*>(to + r * view.row_stride + column),
          load(reinterpret_cast<const Packed<T>*>(tile + piece_offset<Out>(r, column))));
  }
}

// Ends the softmax: stores the log-sum-exp, divides out by the sums.
template <typename C>
IGF_DEVICE void end_rows(const ForwardPlan& plan, int consumer, const WorkItem& item, const SoftmaxRows& rows,
                         float (&out)[C::kWidth / 2]) {
  const int t = thread_index() % 128;
  const int row = item.first_query + 64 * consumer + t / 32 * 16 + t % 32 / 4;  // and row + 8
  float* const lse = plan.lse + item.head * plan.batch.q_rows + item.q_begin + row;
  float factor[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float value = end_row(rows, h, plan.shape.scale, factor[h]);
    if (t % 4 == 0 && row + 8 * h < item.q_count) store(lse + 8 * h, value);
  }
#pragma unroll
  for (int i = 0; i < C::kWidth / 2; ++i) out[i] *= factor[i / 2 % 2];
}

// Consumer `number` works on the block's items until there are no more.
template <typename C>
IGF_DEVICE void consume(const ForwardPlan& plan, const TensorMap& map, const ForwardShared& shared, int number) {
  Consumer<C> self{number, shared};
  if (number == C::kConsumers - 1) end_turn<C>(number);  // the first turn is consumer 0's
#pragma unroll 1
  for (int count = 0;; ++count) {
    const WorkItem& item = await_work(shared, count);
    if (item.head < 0) break;
    float out[C::kWidth / 2];
#pragma unroll
    for (int i = 0; i < C::kWidth / 2; ++i) out[i] = 0.0f;
    SoftmaxRows rows;
    ptx::mbarrier_wait(shared.q_full + number, count % 2);
    attend(self, plan, item, out, rows);
    end_rows<C>(plan, number, item, rows, out);
    store_out<C>(plan, shared, number, item, map, out);
    meet_and_arrive(shared.work_empty + work_stage(count));
  }
  if (number == 0) await_turn<C>(number);  // takes back the turn that the last consumer gave
  if (thread_index() % 128 == 0) ptx::bulk_wait<0>();
}

// By one thread.
template <typename C>
IGF_DEVICE void make_barriers(const ForwardShared& shared) {
  for (int c = 0; c < C::kConsumers; ++c) {
    ptx::mbarrier_init(shared.q_full + c, 1);
    ptx::mbarrier_init(shared.q_empty + c, 4);
  }
  for (int s = 0; s < C::kStages; ++s) {
    ptx::mbarrier_init(shared.k_full + s, 1);
    ptx::mbarrier_init(shared.k_empty + s, C::kConsumerWarps);
    ptx::mbarrier_init(shared.v_full + s, 1);
    ptx::mbarrier_init(shared.v_empty + s, C::kConsumerWarps);
    ptx::mbarrier_init(shared.v_landed + s, 1);
  }
  for (int r = 0; r < kWorkStages; ++r) {
    ptx::mbarrier_init(shared.work_full + r, 1);
    ptx::mbarrier_init(shared.work_empty + r, C::kConsumerWarps + 2);  // and warps 0 and 2
  }
  ptx::mbarrier_init_fence();
}

template <typename C>
IGF_KERNEL(C::kThreads, 1)
attention_hopper_forward_tiles(const IGF_GRID_CONSTANT ForwardPlan plan, const IGF_GRID_CONSTANT TensorMap q,
                               const IGF_GRID_CONSTANT TensorMap k, const IGF_GRID_CONSTANT TensorMap v,
                               const IGF_GRID_CONSTANT TensorMap out) {
  if constexpr (ptx::kHasWgmma) {
    IGF_DYNAMIC_SHARED(tiles);
    IGF_SHARED_ARRAY(WorkItem, items, kWorkStages);
    IGF_SHARED_ARRAY(uint64_t, q_full, C::kConsumers);
    IGF_SHARED_ARRAY(uint64_t, q_empty, C::kConsumers);
    IGF_SHARED_ARRAY(uint64_t, k_full, C::kStages);
    IGF_SHARED_ARRAY(uint64_t, k_empty, C::kStages);
    IGF_SHARED_ARRAY(uint64_t, v_full, C::kStages);
    IGF_SHARED_ARRAY(uint64_t, v_empty, C::kStages);
    IGF_SHARED_ARRAY(uint64_t, v_landed, C::kStages);
    IGF_SHARED_ARRAY(uint64_t, work_full, kWorkStages);
    IGF_SHARED_ARRAY(uint64_t, work_empty, kWorkStages);
    const ForwardShared shared{tiles,   items,   q_full,   q_empty,   k_full,    k_empty,
                               v_full, v_empty, v_landed, work_full, work_empty};
    const int warp = shuffle(thread_index() / kWarp, 0);  // known to be the same in all lanes
    if (thread_index() == 0) {
      for (const TensorMap* map : {&q, &k, &v, &out}) ptx::prefetch_tensor_map(*map);
      make_barriers<C>(shared);
    }
    block_barrier();  // the barriers are made
    if (warp >= 4) {
      ptx::claim_registers<C::kConsumerRegisters>();
      consume<C>(plan, out, shared, warp / 4 - 1);
      return;
    }
    ptx::release_registers<C::kProducerRegisters>();
    if (warp == 0 && lane_index() == 0) bring_tiles<C>(plan, q, k, v, shared);
    if (warp == 1 && lane_index() == 0) {
      hand_out_work<C::kRows, C::kKeys>(plan, items, work_full, work_empty);
    }
    if (warp == 2) overwrite_foreign_rows<C>(plan, shared);
  }
}

}  // namespace igf::attention::hopper_forward
