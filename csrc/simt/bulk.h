// The bulk copies and tensor copies of one block that are under way.
//
// Rules (PTX ISA 9.0, "Data Movement and Conversion Instructions: Bulk copy, Tensor copy"):
//   - a load writes shared memory at any time between its word and the end of its mbarrier's phase
//   - a store or an addition reads shared memory between its word and the wait for its group (.read), and writes global
//     memory between that and the wait for its group; groups are the issuing thread's own
// When the bytes move the schedule's arrival says: at the word, as late as may be (a load when no thread can go on, a
// store at the wait), or at random. Destinations of loads are 0xFF (NaN) from the word until then.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "simt/proxies.h"
#include "simt/tensor_maps.h"

namespace igf::simt {

struct BulkCopy {
  Origin origin;
  device::TensorMapShape shape{};  // of a tensor copy
  int at[5] = {};
  bool tensor = false;
  uintptr_t shared = 0;
  uintptr_t global = 0;  // of a copy without a tensor
  uint32_t bytes = 0;    // in shared memory
  uintptr_t mbarrier = 0;  // of a load
  uint64_t group = 0;      // of a store or addition: from 0, of its thread
  bool read = false;       // of those: `data` holds what it writes
  bool written = false;
  bool waited_read = false;  // its thread has waited until it had read
  std::vector<unsigned char> data;  // in order, not swizzled
};

struct BulkCopies {
  std::deque<BulkCopy> loads;   // in the order of their words
  std::deque<BulkCopy> stores;  // and additions
  std::vector<uint64_t> groups;  // by thread: committed so far
};

// Under the random arrival: now and then one of the block's copies goes on.
void stir_copies();
// No thread can go on: the oldest load of a resident block arrives. False: there is none.
bool complete_a_load();
// The thread has ended; all threads of its block have.
void check_bulk_at_end(Thread& thread);
void finish_bulk(Block& block);

}  // namespace igf::simt
