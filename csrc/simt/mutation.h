// Breaking a kernel on purpose: the words said at one place in the source do not do what they say, all others do.
//
// A test that passes over a broken kernel tests nothing. The emulator breaks the word itself, so nothing is compiled
// anew, kernels carry no switches, and every place that a clean run has reported can be broken in turn.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "simt/events.h"

namespace igf::simt {

enum class Mutation : uint8_t {
  kNone,
  kDropBarrier,       // block_barrier and its kin order and wait for nothing
  kDropWarpBarrier,   // nor does warp_barrier
  kDropFence,         // block_fence, device_fence and wgmma_fence order nothing, nor do proxy fences
  kDropWait,          // a wait for asynchronous copies, for products, or at an mbarrier, returns at once
  kDropArrive,        // an arrival at an mbarrier is not counted, nor are the bytes that it announces
  kDropStore,         // a store, or an asynchronous copy, does not reach memory
  kDropAtomic,        // an atomic operation changes nothing and gives zero
  kShiftLoad,         // a load reads the neighbouring element: the next one, the one before at the end of the buffer
  kShiftStore,        // a store writes there; a tile: one row further
  kWrongParity,       // a wait at an mbarrier is for the other parity
  kWrongBytes,        // 16 bytes fewer are announced than were
  kShuffleWrongLane,  // a shuffle brings the value of the source's neighbour
  kDropCommit,        // wgmma_commit makes no group
  kDropProduct,       // a product of a warpgroup is not made
  kShiftTile,         // a descriptor points to the neighbouring 16 bytes
  kWrongStride,       // a descriptor's stride is that of the next pattern
};
inline constexpr size_t kMutations = 17;

const char* name_of(Mutation kind);                  // "drop_barrier"
Mutation mutation_called(std::string_view name);     // kNone for a name that is none
Mutation drop_of(Word word);                         // how the word is dropped; kNone for what cannot be
Mutation shift_of(Word word);                        // how it is moved; kNone for what cannot be

// Breaks the one place chosen, and collects the places that could be.
class SiteMutator : public Mutator {
 public:
  struct Seen {
    Mutation kind;
    std::string place;  // "csrc/device/reductions.cuh:57"
    uint64_t visits;    // by threads
  };

  // What to break, kNone for nothing: `place` is what sites() says or the end of it ("reductions.cuh:57").
  void choose(Mutation kind, const std::string& place);
  // Starts to collect places, from none.
  void record(bool on);
  std::vector<Seen> sites() const;
  // How often a word has been broken so that it made a difference to what it does, since choose().
  uint64_t applied() const { return applied_; }

  bool dropped(const Who& who, Word word, Site site) override;
  uintptr_t address(const Who& who, const Access& access) override;
  int operand(const Who& who, Word word, Site site, int value) override;
  int source_lane(const Who& who, Word word, Site site, int source, uint32_t lanes) override;

 private:
  struct Visits {
    const char* file;
    uint64_t count;
  };
  bool strikes(Mutation kind, Site site);
  bool is_chosen(const char* file) const;
  void note(Mutation kind, Site site);

  Mutation chosen_ = Mutation::kNone;
  std::string file_;
  int line_ = 0;
  uint64_t applied_ = 0;
  bool recording_ = false;
  std::vector<std::vector<Visits>> seen_;  // by line * kMutations + kind
};

SiteMutator& site_mutator();

}  // namespace igf::simt
