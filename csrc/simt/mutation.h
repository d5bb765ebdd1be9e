// Breaking a kernel on purpose: one word at one place in the source does not do what it says, everything else does.
//
// A test that passes over a broken kernel tests nothing. The emulator breaks the word itself, so nothing is compiled
// anew, kernels carry no switches, and every place that a clean run has reported can be broken in turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace igf::simt {

enum class Mutation : uint8_t {
  kNone,
  kDropBarrier,       // block_barrier and its kin order and wait for nothing
  kDropWarpBarrier,   // nor does warp_barrier
  kDropFence,         // block_fence and device_fence order nothing
  kDropWait,          // a wait for asynchronous copies returns at once
  kDropStore,         // a store does not reach memory
  kDropAtomic,        // an atomic operation returns what is there and changes nothing
  kShiftLoad,         // a load reads the neighbouring element, the one before at the end of the buffer
  kShiftStore,        // a store writes there
  kShuffleWrongLane,  // a shuffle brings the value of the source's neighbour
};
inline constexpr int kMutations = 10;

const char* name_of(Mutation kind);             // "drop_barrier"
Mutation mutation_called(const std::string&);   // kNone for a name that is none

struct MutationSite {
  Mutation kind;
  std::string place;  // "csrc/device/reductions.cuh:57"
  uint64_t visits;    // by threads
};

class Mutations {
 public:
  // What to break, kNone for nothing: `place` is a site's text or the end of one ("reductions.cuh:57").
  void choose(Mutation kind, const std::string& place);
  // Collects the places where words are said.
  void record(bool on);
  std::vector<MutationSite> sites() const;
  uint64_t applied() const { return applied_; }  // how often since choose()

  // Said by every word that can be broken: notes the place; true when the word is to be broken here and now.
  bool strikes(Mutation kind, const char* file, int line) {
    if (recording_) note(kind, file, line);
    if (kind != chosen_ || line != line_ || !is_chosen(file)) return false;
    ++applied_;
    return true;
  }

 private:
  struct Seen {
    const char* file;
    uint64_t visits;
  };
  bool is_chosen(const char* file);
  void note(Mutation kind, const char* file, int line);

  Mutation chosen_ = Mutation::kNone;
  std::string file_;
  int line_ = 0;
  uint64_t applied_ = 0;
  bool recording_ = false;
  std::vector<std::vector<Seen>> seen_;  // by line * kMutations + kind
};

Mutations& mutations();

// Where a shifted access of `bytes` at `address` goes: to the next element of its size within [begin, end), else to the
// one before, else nowhere else.
uintptr_t shifted(uintptr_t address, size_t bytes, uintptr_t begin, uintptr_t end);

}  // namespace igf::simt
