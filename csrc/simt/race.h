// Two accesses that nothing orders, and what is said about them.
#pragma once

#include <string>

#include "simt/shadow.h"

namespace igf::simt {

constexpr Where kAtomicMark = kWhereFree;  // set in Mark::where of an atomic

// Of asynchronous work, which counts for itself.
inline bool is_async(uint32_t clock) { return clock >= kAsyncClock; }

// The earlier of the two.
struct Race {
  Mark mark;
  bool is_write;
};

// With an access of whose turn it is, to `place`.
[[noreturn]] void fail_of_race(const Race& race, uint32_t bytes, Touch kind, Where where, const std::string& place);

// Who made the mark: "thread 3 (...) of block 0", or which copies of the block.
std::string name_of_mark(const Mark& mark);

}  // namespace igf::simt
