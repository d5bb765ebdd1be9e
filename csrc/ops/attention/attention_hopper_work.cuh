// The forward kernel's list of work: which block does which tile of queries, and when.
//
// An item is a tile of queries of one head and sequence. Blocks stay (as many as multiprocessors): each begins with the
// item of its own number and draws the next from a counter. Items stand in an order that has the long ones first: within
// a section the last tile of queries of every head, then the one before; with a causal mask the last ones see the most
// keys, so that short ones fill the gaps at the end. A section is so many heads that their keys and values stay in the
// second-level cache while their tiles of queries pass. In a packed batch the device alone knows the lengths: its slots
// are drawn from the last to the first, all heads of a slot in a row.
//
// One warp draws: it looks for the next item while the others work, and passes it on in a ring of two, so that a block
// is bound to one item ahead at most.
#pragma once

#include "device/ptx_barriers.cuh"
#include "ops/attention/attention_hopper_tiles.cuh"
#include "ops/attention/attention_sequences.cuh"

namespace igf::attention::hopper_forward {

struct ForwardPlan {
  AttentionShape shape;
  AttentionBatch batch;
  AttentionView<void> out;
  float* lse;
  float scale_log2;   // scale / log 2
  int pairs;          // dense: sequences * heads; packed: heads
  int tiles;          // of queries of a pair; packed: slots
  int section;        // pairs of a section
  int items;          // pairs * tiles
  uint32_t* tickets;  // zero before the launch and after it
};

constexpr int kWorkStages = 2;

// Bytes of keys and values of a section: a third of the 50 MB of an H100's second-level cache, whose halves may both
// hold a copy.
constexpr int64_t kSectionBytes = int64_t{16} << 20;

struct WorkItem {
  int64_t q_begin, k_begin;  // the sequence's first row among all rows
  int head;                  // below 0: there is no more work
  int sequence;
  int first_query;           // of the tile, within the sequence
  int q_count, k_count;      // of the sequence
  int first_tile, end_tile;  // of keys that some query of the tile sees; none: equal

  IGF_DEVICE Sight sight(const AttentionShape& shape) const {
    return sight_of(shape, q_count, k_count);
  }
};

struct KeyTiles {
  int first, end;
};

// The tiles of `tile_keys` keys that some query of [i_first, i_end) sees; none: first = end.
IGF_DEVICE KeyTiles key_tiles(const Sight& sight, int i_first, int i_end, int tile_keys) {
  const int first = sight.first_key(i_first), end = sight.end_key(i_end);
  if (i_end <= i_first || end <= first) return {0, 0};
  return {first / tile_keys, (end + tile_keys - 1) / tile_keys};
}

// Whether a tile of queries ends among its sequence's keys in a packed batch, so that its last tile of keys holds rows
// of the next sequence.
template <int kKeys>
IGF_DEVICE bool has_foreign_rows(const ForwardPlan& plan, const WorkItem& item) {
  return plan.batch.cu_seqlens != nullptr && item.end_tile * kKeys > item.k_count;
}

// Item number `number`, [0, items); false when its slot lies beyond its sequence's tiles.
template <int kRows, int kKeys>
IGF_DEVICE bool find_work(WorkItem& item, const ForwardPlan& plan, int number IGF_SITE_PARAMETER) {
  const int heads = static_cast<int>(plan.shape.heads);
  const int in_section = number % (plan.section * plan.tiles);
  const int first_pair = number / (plan.section * plan.tiles) * plan.section;
  const int pairs = plan.pairs - first_pair < plan.section ? plan.pairs - first_pair : plan.section;
  const int tile = plan.tiles - 1 - in_section / pairs;  // packed: slot
  const int pair = first_pair + in_section % pairs;
  const int sequence = pair / heads;  // packed: 0
  const SequenceTile at = plan.batch.cu_seqlens != nullptr
                              ? tile_of_slot<false>(plan.batch, tile, kRows IGF_SITE)
                              : SequenceTile{sequence * plan.batch.q_length, sequence * plan.batch.k_length,
                                             static_cast<int>(plan.batch.q_length),
                                             static_cast<int>(plan.batch.k_length), sequence, tile};
  const int first = at.tile * kRows;
  if (first >= at.q_count) return false;
  item.q_begin = at.q_begin;
  item.head = pair - sequence * heads;
  item.sequence = at.sequence;
  item.k_begin = at.k_begin;
  item.first_query = first;
  item.q_count = at.q_count;
  item.k_count = at.k_count;
  const int end = first + kRows < at.q_count ? first + kRows : at.q_count;
  const KeyTiles tiles = key_tiles(item.sight(plan.shape), first, end, kKeys);
  item.first_tile = tiles.first;
  item.end_tile = tiles.end;
  return true;
}

// The next item's number, drawn by one thread a block. Every block draws until it gets one beyond the last, so `items`
// numbers are drawn in all (the first `grid_x()` items take none), and who draws the last one leaves the counter at 0.
IGF_DEVICE int draw(const ForwardPlan& plan IGF_SITE_PARAMETER) {
  const int ticket = static_cast<int>(device::atomic_add(plan.tickets, 1u IGF_SITE));
  if (ticket == plan.items - 1) device::atomic_exchange(plan.tickets, 0u IGF_SITE);
  return static_cast<int>(device::grid_x()) + ticket;
}

// Hands the block's items to its other warps, one after the other, and then the end. By one thread.
template <int kRows, int kKeys>
IGF_DEVICE void hand_out_work(const ForwardPlan& plan, WorkItem* items, uint64_t* full,
                              uint64_t* empty IGF_SITE_PARAMETER) {
  Ring<kWorkStages> ring;
  for (bool first = true, ended = false; !ended; first = false) {
    device::ptx::mbarrier_wait(empty + ring.stage, ring.parity ^ 1 IGF_SITE);  // all have left the item before last
    WorkItem& item = items[ring.stage];
    int number = first ? static_cast<int>(device::block_x()) : draw(plan IGF_SITE);
    while (number < plan.items && !find_work<kRows, kKeys>(item, plan, number IGF_SITE)) number = draw(plan IGF_SITE);
    ended = number >= plan.items;
    if (ended) item.head = -1;
    device::ptx::mbarrier_arrive(full + ring.stage IGF_SITE);
    ring.advance();
  }
}

}  // namespace igf::attention::hopper_forward
