// Which accesses precede which: vector clocks, exact, at the cost of a comparison for barriers.
//
// Every thread counts its releases (barriers, fences): its clock. An access is marked with its thread and that thread's
// clock. After a block barrier every thread of the block has the same clock, the block's base, greater than all before:
// so an access of the own block at a clock below the base has happened before, and needs no vector. What else a thread
// has seen (by warp barriers, named barriers, fences with atomics) is a View, shared by all who saw the same.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace igf::simt {

struct Thread;
struct Block;

// Views and marks number the lanes of a block: its threads first, in whole warps, then lanes that no thread has, for what
// its asynchronous copies do (bulk.h). Those count for themselves, from kAsyncClock on: no block's base covers them.
constexpr uint32_t kAsyncClock = 1u << 31;

// What somebody has seen of others. Immutable once shared.
struct View {
  struct Row {
    int64_t warp;  // of the launch: block * rows of a block + warp
    std::array<uint32_t, 32> clocks;  // of each lane: accesses up to this clock are seen; 0: none
  };
  struct Base {
    int64_t block;
    uint32_t clock;  // accesses of all its threads below this clock are seen
  };
  std::vector<Row> rows;    // by warp
  std::vector<Base> bases;  // by block
};

using Seen = std::shared_ptr<const View>;  // null: nothing

// The smallest view that has seen both. Returns one of the two where that is it.
Seen joined(const Seen& a, const Seen& b);
// What both have seen.
Seen common(const Seen& a, const Seen& b);

// A thread's own time.
struct Clock {
  uint32_t now = 1;
  Seen seen;            // of other threads, beyond the block's base
  Seen released[2];     // by the last block fence and device fence: what a later atomic publishes
  Seen acquired[2];     // by atomics: seen after the next block fence or device fence
};

// How far a fence or an ordered access reaches.
enum class Scope { kBlock = 0, kDevice = 1 };

// One thread's access, kept in a shadow cell. thread: block * lanes of a block + lane + 1; 0 for none.
struct Mark {
  uint32_t thread;
  uint32_t clock;
  uint32_t where;
};

// Whether the current thread has seen an access that its block's base does not cover: of another thread of its block,
// or of another block.
bool seen_by_view(const Seen& seen, uint32_t thread, uint32_t clock);

// The lane of a block at that clock of its own, and nothing else.
Seen only_lane(int64_t block, int lane, uint32_t clock);

// All threads of the block have met: from here on its base covers all they did.
void order_block(Block& block);
// These threads of one block have met: each has seen what all have done and seen.
void order_threads(Block& block, const int* threads, int count);
// Of a named barrier: what `thread` has done and seen goes into `all`; what is in `all` has been seen by `thread`.
void contribute(Thread& thread, Seen& all);
void receive(Thread& thread, const Seen& all);

// A fence of the thread: what it has acquired is seen from here on, what it has done is released by its next atomic.
void fence(Thread& thread, Scope scope);
// An atomic of the thread on this address passes on what was released there, and releases what the thread's last
// fences did.
void pass_on(Thread& thread, uintptr_t address);
// Accesses that are their own fence.
void acquire(Thread& thread, uintptr_t address);
void release(Thread& thread, uintptr_t address, bool replaces);

// Between launches.
void forget_order();

}  // namespace igf::simt
