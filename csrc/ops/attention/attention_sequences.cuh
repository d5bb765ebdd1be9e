// From a number in a grid to a tile of one sequence, and from a tile of queries to the keys that it sees, and back.
//
// Packed bounds stand on the device, so the host cannot count tiles. It launches one slot for every tile that there may
// be: with tiles of R rows, sequence s begins at slot bounds[s] / R + s, which leaves it at least ceil(length / R)
// slots, and two sequences never share one. Slots beyond a sequence's tiles have nothing to do. A sequence is found by
// halving.
#pragma once

#include "device/memory.cuh"
#include "device/words.cuh"
#include "ops/attention/attention_cuda.h"

namespace igf::attention {

using device::load;

// Slots of tiles of `tile_rows` rows over `rows` rows, each sequence of a dense batch having `length`.
inline int64_t tile_slots(const AttentionBatch& batch, int64_t rows, int64_t length, int64_t tile_rows) {
  if (batch.cu_seqlens != nullptr) return batch.sequences == 0 ? 0 : rows / tile_rows + batch.sequences;
  return batch.sequences * ceil_div(length, tile_rows);
}

// A sequence: its rows, where they begin among all rows, and its number; and a tile of it.
struct SequenceTile {
  int64_t q_begin, k_begin;
  int q_count, k_count;
  int sequence;
  int tile;  // its first row is tile * tile_rows; beyond the sequence: nothing to do
};

// Bound s of the packed sequences, cut to the rows there are.
IGF_DEVICE int64_t packed_bound(const AttentionBatch& batch, int64_t s IGF_SITE_PARAMETER) {
  const int64_t bound = load(batch.cu_seqlens + s IGF_SITE);
  return bound < 0 ? 0 : bound > batch.q_rows ? batch.q_rows : bound;
}

// The tile of a slot: of queries, or of keys (kOfKeys; in a packed batch both have the same bounds).
template <bool kOfKeys>
IGF_DEVICE SequenceTile tile_of_slot(const AttentionBatch& batch, int64_t slot, int tile_rows IGF_SITE_PARAMETER) {
  if (batch.cu_seqlens == nullptr) {
    const int64_t length = kOfKeys ? batch.k_length : batch.q_length;
    const int64_t tiles = (length + tile_rows - 1) / tile_rows;
    const int64_t sequence = slot / tiles;
    return {sequence * batch.q_length, sequence * batch.k_length, static_cast<int>(batch.q_length),
            static_cast<int>(batch.k_length), static_cast<int>(sequence), static_cast<int>(slot - sequence * tiles)};
  }
  int64_t low = 0, high = batch.sequences;  // the last sequence that begins at or before the slot is in [low, high)
  int64_t passed = 0;                       // the latest slot at which a sequence begins that the search went past
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    const int64_t first = packed_bound(batch, middle IGF_SITE) / tile_rows + middle;
    if (first <= slot) {
      low = middle;
      passed = first > passed ? first : passed;
    } else {
      high = middle;
    }
  }
  const int64_t begin = packed_bound(batch, low IGF_SITE), end = packed_bound(batch, low + 1 IGF_SITE);
  const int64_t first = begin / tile_rows + low, tile = slot - first;
  // Bounds that do not begin with 0 leave slots before the first sequence. Where bounds decrease, a search for an earlier
  // tile of this sequence may end at another one: then no tile of it is found, so that whoever waits for the tiles
  // before its own (the gradients' deterministic order) waits for none that nobody computes.
  const int count = end > begin && tile >= 0 && passed <= first ? static_cast<int>(end - begin) : 0;
  return {begin, begin, count, count, static_cast<int>(low), tile >= 0 ? static_cast<int>(tile) : 0};
}

// A window of this many keys hides none, and a position added to it is still an int: the two together have fewer rows.
constexpr int kWidestWindow = 1 << 30;

// Who sees whom in a sequence: query i sees the last `window` keys up to its position, i + offset; see attention.h.
// Where all see all, positions are beyond every key, so that nothing has to be asked twice.
struct Sight {
  int offset;
  int k_count;
  int window;  // at most kWidestWindow

  // Whether query i sees key j, both inside the sequence.
  IGF_DEVICE bool sees(int i, int j) const {
    const int position = i + offset;
    return j < k_count && j <= position && j > position - window;
  }
  // The keys [first, end) that some query of [i_first, i_end) sees; empty when end <= first.
  IGF_DEVICE int first_key(int i_first) const {
    const int first = i_first + offset - window + 1;
    return first < 0 ? 0 : first;
  }
  IGF_DEVICE int end_key(int i_end) const { return i_end + offset < k_count ? i_end + offset : k_count; }
  // Whether every query of [i_first, i_end) sees every key of [j_first, j_end): such a tile needs no mask.
  IGF_DEVICE bool all_see(int i_first, int i_end, int j_first, int j_end) const {
    return j_end <= k_count && j_end - 1 <= i_first + offset && j_first > i_end - 1 + offset - window;
  }
  // The same sight with keys counted from key `zero` on.
  IGF_DEVICE Sight from(int zero) const { return {offset - zero, k_count - zero, window}; }
  // The queries [first, end) that see some key of [j_first, j_end), of q_count.
  IGF_DEVICE int first_query(int j_first) const { return j_first < offset ? 0 : j_first - offset; }
  IGF_DEVICE int end_query(int j_end, int q_count) const {
    const int end = j_end - 1 + window - offset;
    return end < q_count ? end : q_count;
  }
};

IGF_DEVICE Sight sight_of(const AttentionShape& shape, int q_count, int k_count) {
  const bool banded = shape.window > 0 && shape.window < kWidestWindow;
  return {shape.causal ? k_count - q_count : k_count, k_count,
          banded ? static_cast<int>(shape.window) : kWidestWindow};
}
IGF_DEVICE Sight sight_of(const AttentionShape& shape, const SequenceTile& at) {
  return sight_of(shape, at.q_count, at.k_count);
}

}  // namespace igf::attention
