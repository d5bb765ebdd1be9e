// The two ways to reach memory. Threads load and store through the generic proxy; tensor copies, bulk copies and wgmma
// work through the async one, beside the threads.
//
// Rules (PTX ISA 9.0, "Memory Consistency Model: Proxies", "Async proxy"):
//   - what threads wrote, the async proxy sees only past a proxy fence: one that follows the write and precedes the word
//     that asks for the work, said by any thread on the way
//   - what a copy wrote is seen by whoever waited for it, without a fence
//   - so it is with what a copy read, and with what a thread read: later writes need no fence
//
// Asynchronous work has lanes of its own in views and marks (order.h), behind those of the block's threads. It comes
// after all that preceded the word that asked for it, and precedes what follows a wait for it; nothing else is ordered.
#pragma once

#include <cstdint>

#include <string>

#include "simt/core.h"
#include "simt/shadow.h"

namespace igf::simt {

// The lanes of a block, behind its threads: one for each mbarrier (the copies that end there), two for each thread (its
// stores and additions: what they read, what they write), one for each warpgroup (its products).
constexpr int kMbarrierRows = 2;
inline int rows_of_block(int warps) { return 3 * warps + kMbarrierRows + 1; }
inline int mbarrier_lane(int number) {
  return current_launch->warps * kWarpLanes + number % (kMbarrierRows * kWarpLanes);
}
inline int reading_lane(int thread) { return (current_launch->warps + kMbarrierRows) * kWarpLanes + thread; }
inline int writing_lane(int thread) { return (2 * current_launch->warps + kMbarrierRows) * kWarpLanes + thread; }
inline int product_lane(int warpgroup) {
  return (3 * current_launch->warps + kMbarrierRows) * kWarpLanes + warpgroup;
}
// "a copy that ends at an mbarrier", "a store or addition of thread 3": whose mark it is, for lanes that are no thread's.
std::string name_of_lane(int lane);

// A word that asked for asynchronous work: who said it, and what came before.
struct Origin {
  Block* block = nullptr;
  Who who{};
  Word word = Word::kCount;
  Site site;
  Seen before;
  uint32_t base = 0;  // of the block
};
// Of the thread whose turn it is.
Origin origin_here(Word word, Site site);

// While it lives it is the turn of asynchronous work: accesses are checked and marked as those of `lane` at `clock`.
class AsyncTurn {
 public:
  AsyncTurn(const Origin& origin, int lane, uint32_t clock);
  ~AsyncTurn();
  AsyncTurn(const AsyncTurn&) = delete;
  AsyncTurn& operator=(const AsyncTurn&) = delete;

 private:
  Turn saved_;
};

// Whether what is marked so precedes whatever follows in this turn.
bool has_happened(const Mark& mark);

// An access by the async proxy of whose turn it is: bounds and races are checked and the access is noted, as touch()
// does, and what threads wrote there must be fenced. In an AsyncTurn. Returns what touch() does.
const Buffer* touch_async(uintptr_t address, uint32_t bytes, Touch kind, Where where);

// Between launches.
void forget_proxies();

}  // namespace igf::simt
