// How launches run: set between launches, the same for every launch until set again.
#pragma once

#include <cstdint>

namespace igf::simt {

enum class Schedule : int32_t {
  kForward,     // each thread runs until it waits, then the next one in order
  kReverse,     // the same from the last to the first, blocks too
  kRandom,      // any thread that can run, at every point where one waits; blocks in random order
  kPreempting,  // the same, and threads also lose their turn at random accesses to memory
};

// When the bytes of an asynchronous copy arrive.
enum class Arrival : int32_t { kLazy, kEager, kRandom };

struct Options {
  Schedule schedule = Schedule::kForward;
  Arrival arrival = Arrival::kLazy;
  uint64_t seed = 0;
  int resident_blocks = 4;          // run interleaved; more cannot wait for each other
  int accesses_between_turns = 40;  // kPreempting: on average
  int multiprocessors = 4;          // what device_context tells the op
  int architecture = 80;            // the same: 80, 86, 89, 90, 100 or 120
  int64_t most_words = 0;           // that a launch may say before it is taken to have no end; 0: any number
};

// Shared memory that a block of an architecture can have, static and dynamic.
inline int64_t shared_bytes_limit(int architecture) {
  switch (architecture) {
    case 80: return 163 << 10;
    case 90: case 100: return 227 << 10;
    default: return 99 << 10;
  }
}

Options& options();

}  // namespace igf::simt
