// The mbarriers of one block: 8 bytes of shared memory each, that count arrivals of threads and bytes of copies.
//
// Rules (PTX ISA 9.0, "Parallel Synchronization and Communication Instructions: mbarrier"):
//   - a phase ends when all its arrivals have come and as many bytes as were announced; the next begins by itself
//   - an arrival releases what its thread did before; a wait that passes acquires what was released in all phases that
//     have ended, and what their copies wrote
//   - waiting for parity p passes while the present phase has the other parity: so nobody may be left behind by a phase
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "simt/core.h"

namespace igf::simt {

struct Mbarrier {
  uintptr_t address = 0;
  int number = 0;    // in the block, in the order of their beginnings
  int thread = 0;    // that began it
  Mark begun{};      // by it
  Site site;         // where
  bool fenced = false;  // the async proxy knows of it
  int arrivals = 0;  // of a phase
  int missing = 0;   // in this phase
  int64_t bytes = 0; // announced in this phase that have not come; below 0: come and not announced yet
  uint32_t phase = 0;
  int under_way = 0;  // copies that will end here
  uint32_t loads = 0;   // phases up to the last one that a copy was asked for in
  uint32_t waited = 0;  // phases whose end somebody has seen
  Site load_site;       // of that copy
  Seen arriving;      // released in this phase
  Seen released;      // in all before
  std::vector<int> waiting;  // threads, for the end of this phase
  std::vector<int> woken;    // those of the phase before that have not gone on yet
};

struct Mbarriers {
  std::deque<Mbarrier> all;
  uintptr_t low = ~uintptr_t{0};  // all lie in [low, high)
  uintptr_t high = 0;

  Mbarrier* at(uintptr_t address);                          // null: none stands there
  const Mbarrier* touched(uintptr_t address, size_t bytes) const;  // null: none of these bytes is one's
};

// The mbarrier that the thread whose turn it is names, or a fault: nothing was begun there, or it is not ordered after.
Mbarrier& mbarrier_at(const uint64_t* barrier, Word word, Site site);
// The mbarriers that the thread has begun are known to the async proxy from here on.
void tell_async_proxy();
// A copy that ends here is asked for; its bytes have come.
void expect_copy(Mbarrier& barrier, Word word, Site site);
void complete_bytes(Block& block, Mbarrier& barrier, uint32_t bytes, Word word, Site site);
// All threads of the block have ended: what was loaded has been waited for, or a fault.
void check_mbarriers_at_end(const Block& block);

// "full[1] (x.cu:20): phase 3 lacks 1 of 2 arrivals and 4096 bytes".
std::string describe(const Block& block, const Mbarrier& barrier);

// A plain access of bytes of an mbarrier.
[[noreturn]] void fail_of_mbarrier_bytes(const Mbarrier& barrier, const std::string& what, Where where);

}  // namespace igf::simt
