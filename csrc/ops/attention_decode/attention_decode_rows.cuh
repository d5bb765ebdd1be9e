// What a block works on: queries of one row that share a key head, and a share of the positions that they see.
//
// The host knows how long rows may be, the device how long they are: the grid has `splits` blocks for each tile of
// queries, and the positions that the tile does see are cut into equal shares of whole steps, one a block. Blocks that
// get none leave at once.
#pragma once

#include "device/memory.cuh"
#include "device/words.cuh"
#include "ops/attention_decode/attention_decode_cuda.h"

namespace igf::decode {

using namespace device;

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kMostSplits = 256;

struct Launch {
  AttentionDecodeCuda call;
  float* partials;     // see attention_decode_merge.cuh
  int64_t partial_sums;  // where in them the sums begin
  uint32_t* arrivals;  // one for each unit
  int32_t group;       // query heads that share a key head
  int32_t tile;        // queries of a whole tile
  int32_t tiles;       // of a row and key head: its tokens * group queries, token by token
  int32_t splits;
  int32_t slot_stride;  // of the caches, in elements
  int32_t window;      // 0: none
  int32_t page_shift;  // log2 of the page, -1 where it is no power of two
};

// A block's place. Neighbouring blocks have neighbouring heads, which lie side by side in the cache.
struct Work {
  int row, head, split;
  int64_t unit;        // row, tile and head, counted through
  int first_query;     // of the row and key head
  int queries;         // [1, tile]
  int first_token, last_token;
};

IGF_DEVICE Work work_of(const Launch& a) {
  const uint32_t heads = static_cast<uint32_t>(a.call.shape.kv_heads);
  uint32_t rest = static_cast<uint32_t>(block_x());
  Work work;
  work.head = static_cast<int>(rest % heads);
  rest /= heads;
  work.split = static_cast<int>(rest % a.splits);
  rest /= a.splits;
  work.row = static_cast<int>(rest / a.tiles);
  work.unit = static_cast<int64_t>(rest) * heads + work.head;
  const int queries = static_cast<int>(a.call.shape.tokens) * a.group;
  work.first_query = static_cast<int>(rest % a.tiles) * a.tile;
  work.queries = queries - work.first_query < a.tile ? queries - work.first_query : a.tile;
  work.first_token = work.first_query / a.group;
  work.last_token = (work.first_query + work.queries - 1) / a.group;
  return work;
}

// Where query i of the tile stands in q (strides as given) and in out.
IGF_DEVICE int token_of(const Launch& a, const Work& work, int i) { return (work.first_query + i) / a.group; }
IGF_DEVICE int head_of(const Launch& a, const Work& work, int i) {
  return work.head * a.group + (work.first_query + i) % a.group;
}
template <typename T>
IGF_DEVICE const T* query_at(const Launch& a, const Work& work, int i) {
  const AttentionDecodeView& q = a.call.q;
  return static_cast<const T*>(q.data) + work.row * q.row_stride + token_of(a, work, i) * q.token_stride +
         head_of(a, work, i) * q.head_stride;
}
template <typename T>
IGF_DEVICE T* out_at(const Launch& a, const Work& work, int i) {
  const AttentionDecodeShape& s = a.call.shape;
  return static_cast<T*>(a.call.out) +
         ((work.row * s.tokens + token_of(a, work, i)) * s.heads + head_of(a, work, i)) * s.width;
}

// The block's positions, [begin, end); cached: where the new ones begin. active: how many blocks of the unit have some.
struct Share {
  int cached, begin, end, active;
  bool valid;  // the row fits its table
};

// Shares are whole steps of kStep positions, counted from the first position that the tile sees.
template <int kStep>
IGF_DEVICE Share share_of(const Launch& a, const Work& work IGF_SITE_PARAMETER) {
  const AttentionDecodeShape& s = a.call.shape;
  const int cached = load(a.call.cache_lens + work.row IGF_SITE);
  if (cached < 0 || cached > s.table_width * s.page - s.tokens) return {cached, 0, 0, 1, false};
  const int since = cached + work.first_token + 1 - a.window;
  const int first = a.window > 0 && since > 0 ? since : 0;
  const int last = cached + work.last_token + 1;
  const int steps = (last - first + kStep - 1) / kStep;
  const int steps_a_block = (steps + a.splits - 1) / a.splits;
  const int begin = first + work.split * steps_a_block * kStep;
  const int end = begin + steps_a_block * kStep;
  return {cached, begin, end < last ? end : last, (steps + steps_a_block - 1) / steps_a_block, true};
}

// Which positions a token at `own` sees.
IGF_DEVICE bool sees(int own, int position, int window) {
  return position <= own && (window == 0 || position > own - window);
}
// Whether every token of the tile sees all of a step. token: its first position less those cached, as tokens are counted.
template <int kStep>
IGF_DEVICE bool all_see(const Launch& a, const Work& work, int token) {
  return token + kStep - 1 <= work.first_token && (a.window == 0 || token > work.last_token - a.window);
}

// Whether this tile's blocks append a new token: those with the first of its queries.
IGF_DEVICE bool appends(const Launch& a, const Work& work, int token) {
  const int query = token * a.group - work.first_query;
  return query >= 0 && query < work.queries;
}

// A step of a warp.
struct Step {
  int token;   // the first position less those cached: negative for an old one
  int slots;   // lane l has the slot of position l % kStep: -1 beyond the share, and where the page is not in the cache
  bool plain;  // every position is cached, and its page there: true in all lanes or none
};

// The steps of a warp, one after the other, the next one's page under way meanwhile.
template <int kStep>
class Steps {
 public:
  IGF_DEVICE Steps(const Launch& a, const Work& work, const Share& share IGF_SITE_PARAMETER)
      : table_(a.call.block_table + work.row * a.call.shape.table_width),
        page_(static_cast<int>(a.call.shape.page)),
        pages_(static_cast<int>(a.call.shape.pages)),
        shift_(a.page_shift),
        cached_(share.cached),
        end_(share.end),
        position_(share.begin + thread_x() / kWarp * kStep + lane_index() % kStep) {
    look_up(IGF_ONLY_SITE);
  }

  IGF_DEVICE Step next(IGF_ONLY_SITE_PARAMETER) {
    const int position = position_, entry = entry_;
    position_ += kWarps * kStep;
    look_up(IGF_ONLY_SITE);
    const bool present = position < end_, inside = entry >= 0 && entry < pages_;
    lost_ |= present && !inside;
    const int slot = present && inside ? entry * page_ + position - page_of(position) * page_ : -1;
    const int token = position - lane_index() % kStep - cached_;
    return {token, slot, all_lanes(slot >= 0, kAllLanes IGF_SITE) && token + kStep <= 0};
  }

  // Whether a step begins within the share.
  IGF_DEVICE bool has(const Step& step) const { return step.token < end_ - cached_; }

  // Whether any lane came to a page that is not in the cache.
  IGF_DEVICE bool lost(IGF_ONLY_SITE_PARAMETER) const { return any_lane(lost_, kAllLanes IGF_SITE); }

 private:
  IGF_DEVICE int page_of(int position) const { return shift_ >= 0 ? position >> shift_ : position / page_; }
  IGF_DEVICE void look_up(IGF_ONLY_SITE_PARAMETER) {
    entry_ = position_ < end_ ? load(table_ + page_of(position_) IGF_SITE) : -1;
  }

  const int32_t* table_;
  int page_, pages_, shift_, cached_, end_;
  int position_, entry_ = -1;
  bool lost_ = false;
};

// Keys or values of one row and head: the new ones in the arguments, the older ones in the cache. Kept small, because it
// lies in registers all the time: where the new ones are is worked out when one is met.
template <typename T>
class Store {
 public:
  IGF_DEVICE Store(const Launch& a, const Work& work, const AttentionDecodeView& view, void* slots)
      : view_(view),
        cache_(static_cast<T*>(slots) + work.head * a.call.shape.width),
        row_(work.row),
        head_(work.head),
        slot_stride_(a.slot_stride) {}

  // token: the position less those cached, negative for an old one.
  IGF_DEVICE const T* at(int token, int slot) const {
    if (token < 0) return this->slot(slot);
    return static_cast<const T*>(view_.data) + row_ * view_.row_stride + head_ * view_.head_stride +
           token * view_.token_stride;
  }
  IGF_DEVICE T* slot(int slot) const { return cache_ + static_cast<int64_t>(slot) * slot_stride_; }

 private:
  const AttentionDecodeView& view_;
  T* const cache_;  // slot 0
  const int row_, head_;
  const int32_t slot_stride_;  // 32 bits: one multiplication makes an offset of 64
};

}  // namespace igf::decode
