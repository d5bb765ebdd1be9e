#include "simt/order.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "simt/core.h"

namespace igf::simt {
namespace {

// What atomics on one address pass on.
struct Published {
  Seen device;
  std::map<int64_t, Seen> block;  // released by block fences, to threads of the same block
};

std::unordered_map<uintptr_t, Published> published;

// The last that was received: threads that wait for the same have mostly seen the same before.
struct Received {
  Seen own, all, both;
};

Received latest;

int64_t warp_of(const Thread& thread) { return thread.who.block * current_launch->rows + thread.who.warp; }

bool covers(const View& view, const View& other) {
  for (const View::Base& base : other.bases) {
    const auto own = std::lower_bound(view.bases.begin(), view.bases.end(), base.block,
                                      [](const View::Base& b, int64_t block) { return b.block < block; });
    if (own == view.bases.end() || own->block != base.block || own->clock < base.clock) return false;
  }
  for (const View::Row& row : other.rows) {
    const auto own = std::lower_bound(view.rows.begin(), view.rows.end(), row.warp,
                                      [](const View::Row& r, int64_t warp) { return r.warp < warp; });
    if (own == view.rows.end() || own->warp != row.warp) return false;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      if (own->clocks[lane] < row.clocks[lane]) return false;
    }
  }
  return true;
}

// Merges two lists that are sorted by `key`; equal keys by `meet`.
template <typename Item, typename Key, typename Meet>
std::vector<Item> merged(const std::vector<Item>& a, const std::vector<Item>& b, Key key, Meet meet) {
  std::vector<Item> result;
  result.reserve(a.size() + b.size());
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (key(a[i]) < key(b[j])) {
      result.push_back(a[i++]);
    } else if (key(b[j]) < key(a[i])) {
      result.push_back(b[j++]);
    } else {
      result.push_back(meet(a[i++], b[j++]));
    }
  }
  result.insert(result.end(), a.begin() + i, a.end());
  result.insert(result.end(), b.begin() + j, b.end());
  return result;
}

View::Row later_clocks(View::Row a, const View::Row& b) {
  for (int lane = 0; lane < kWarpLanes; ++lane) a.clocks[lane] = std::max(a.clocks[lane], b.clocks[lane]);
  return a;
}

// The part of what was seen that is not of the block's own threads.
Seen without_block(const Seen& seen, int64_t block) {
  if (seen == nullptr) return seen;
  const int64_t first = block * current_launch->rows;
  const auto own = [=](const View::Row& row) { return row.warp >= first && row.warp < first + current_launch->warps; };
  auto rest = std::make_shared<View>(*seen);
  std::erase_if(rest->rows, own);
  std::erase_if(rest->bases, [=](const View::Base& base) { return base.block == block; });
  return rest->rows.empty() && rest->bases.empty() ? nullptr : rest;
}

void advance(Thread& thread) {
  thread.block->latest = std::max(thread.block->latest, ++thread.clock.now);
}

// All that precedes what the thread does next.
Seen everything_before(const Thread& thread) {
  auto own = std::make_shared<View>();
  View::Row row{warp_of(thread), {}};
  row.clocks[thread.who.lane] = thread.clock.now;
  own->rows.push_back(row);
  own->bases.push_back({thread.who.block, thread.block->base});
  return joined(thread.clock.seen, own);
}

}  // namespace

Seen joined(const Seen& a, const Seen& b) {
  if (a == b || b == nullptr) return a;
  if (a == nullptr) return b;
  if (covers(*a, *b)) return a;
  if (covers(*b, *a)) return b;
  auto both = std::make_shared<View>();
  both->rows = merged(a->rows, b->rows, [](const View::Row& row) { return row.warp; }, later_clocks);
  both->bases = merged(a->bases, b->bases, [](const View::Base& base) { return base.block; },
                       [](const View::Base& x, const View::Base& y) { return x.clock < y.clock ? y : x; });
  return both;
}

Seen common(const Seen& a, const Seen& b) {
  if (a == b || a == nullptr || b == nullptr) return a == b ? a : nullptr;
  auto both = std::make_shared<View>();
  for (size_t i = 0, j = 0; i < a->rows.size() && j < b->rows.size();) {
    const View::Row& x = a->rows[i];
    const View::Row& y = b->rows[j];
    if (x.warp == y.warp) {
      View::Row row = x;
      for (int lane = 0; lane < kWarpLanes; ++lane) row.clocks[lane] = std::min(x.clocks[lane], y.clocks[lane]);
      both->rows.push_back(row);
    }
    i += x.warp <= y.warp ? 1 : 0;
    j += y.warp <= x.warp ? 1 : 0;
  }
  for (size_t i = 0, j = 0; i < a->bases.size() && j < b->bases.size();) {
    const View::Base& x = a->bases[i];
    const View::Base& y = b->bases[j];
    if (x.block == y.block) both->bases.push_back({x.block, std::min(x.clock, y.clock)});
    i += x.block <= y.block ? 1 : 0;
    j += y.block <= x.block ? 1 : 0;
  }
  return both;
}

bool seen_by_view(const Seen& seen, uint32_t thread, uint32_t clock) {
  if (seen == nullptr) return false;
  const View& view = *seen;
  const int lanes = current_launch->rows * kWarpLanes;
  const int64_t block = (thread - 1) / lanes;
  const int in_block = static_cast<int>(thread - 1 - block * lanes);
  const auto base = std::lower_bound(view.bases.begin(), view.bases.end(), block,
                                     [](const View::Base& b, int64_t number) { return b.block < number; });
  if (base != view.bases.end() && base->block == block && clock < base->clock) return true;
  const int64_t warp = block * current_launch->rows + in_block / kWarpLanes;
  const auto row = std::lower_bound(view.rows.begin(), view.rows.end(), warp,
                                    [](const View::Row& r, int64_t w) { return r.warp < w; });
  return row != view.rows.end() && row->warp == warp && clock <= row->clocks[in_block % kWarpLanes];
}

Seen only_lane(int64_t block, int lane, uint32_t clock) {
  auto view = std::make_shared<View>();
  View::Row row{block * current_launch->rows + lane / kWarpLanes, {}};
  row.clocks[static_cast<size_t>(lane % kWarpLanes)] = clock;
  view->rows.push_back(row);
  return view;
}

void order_block(Block& block) {
  Seen seen;
  const Seen* last = nullptr;
  for (int i = 0; i < current_launch->threads; ++i) {
    const Seen& each = thread_of(block, i).clock.seen;
    if (each == nullptr || (last != nullptr && each == *last)) continue;
    seen = joined(seen, each);
    last = &each;
  }
  seen = without_block(seen, block.number);
  block.base = ++block.latest;
  for (int i = 0; i < current_launch->threads; ++i) {
    Clock& clock = thread_of(block, i).clock;
    clock.now = block.base;
    clock.seen = seen;
  }
}

void order_threads(Block& block, const int* threads, int count) {
  auto own = std::make_shared<View>();
  Seen seen;
  for (int i = 0; i < count; ++i) {
    const Thread& thread = thread_of(block, threads[i]);
    if (own->rows.empty() || own->rows.back().warp != warp_of(thread)) own->rows.push_back({warp_of(thread), {}});
    own->rows.back().clocks[thread.who.lane] = thread.clock.now;
    seen = joined(seen, thread.clock.seen);
  }
  seen = joined(seen, own);
  for (int i = 0; i < count; ++i) {
    Thread& thread = thread_of(block, threads[i]);
    thread.clock.seen = seen;
    advance(thread);
  }
}

void contribute(Thread& thread, Seen& all) {
  all = joined(all, everything_before(thread));
  advance(thread);
}

void receive(Thread& thread, const Seen& all) {
  if (thread.clock.seen != latest.own || all != latest.all) {
    latest = {thread.clock.seen, all, joined(thread.clock.seen, all)};
  }
  thread.clock.seen = latest.both;
}

void fence(Thread& thread, Scope scope) {
  Clock& clock = thread.clock;
  for (int reach = 0; reach <= static_cast<int>(scope); ++reach) {
    clock.seen = joined(clock.seen, clock.acquired[reach]);
    clock.acquired[reach] = nullptr;
  }
  const Seen before = everything_before(thread);
  for (int reach = 0; reach <= static_cast<int>(scope); ++reach) clock.released[reach] = before;
  advance(thread);
}

void pass_on(Thread& thread, uintptr_t address) {
  Clock& clock = thread.clock;
  if (published.empty() && clock.released[0] == nullptr) return;
  Published& here = published[address];
  Seen& block = here.block[thread.who.block];
  clock.acquired[0] = joined(clock.acquired[0], block);
  clock.acquired[1] = joined(clock.acquired[1], here.device);
  block = joined(block, clock.released[0]);
  here.device = joined(here.device, clock.released[1]);
}

void acquire(Thread& thread, uintptr_t address) {
  const auto found = published.find(address);
  if (found != published.end()) thread.clock.seen = joined(thread.clock.seen, found->second.device);
}

void release(Thread& thread, uintptr_t address, bool replaces) {
  Seen& device = published[address].device;
  device = joined(replaces ? nullptr : device, everything_before(thread));
  advance(thread);
}

void forget_order() {
  published.clear();
  latest = Received();
}

}  // namespace igf::simt
