// The asynchronous copies (cp.async) of one block that are under way: who issued them, where, and which bytes they own.
//
// What is checked where: the words that issue and wait are in copy_words.cpp; every access of a thread asks under_way()
// whether it touches bytes of a copy. Rules: PTX ISA 9.0, "Data Movement and Conversion Instructions: Asynchronous copy".
//   - from the issue until the wait the destination belongs to the copy, and its bytes are 0xFF (NaN) until they arrive
//   - the source is read as late as possible, at the wait; it must then still be what it was at the issue
//   - a wait for groups ends those of the waiting thread alone
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "simt/site.h"

namespace igf::simt {

struct Copy {
  uintptr_t shared = 0;       // the destination
  uintptr_t global = 0;       // the source
  uint32_t bytes = 0;         // of the destination: 4, 8 or 16
  uint32_t source_bytes = 0;  // read from the source; the rest becomes 0
  int thread = 0;             // in its block
  Site site;                  // of the issue
  unsigned char source[16];   // as it was at the issue
};

class Copies {
 public:
  // A block begins: where its shared memory does, on 4 bytes, and its number of threads.
  void begin(uintptr_t shared, int threads);

  // A copy that has passed all checks. `at_once`: the bytes arrive now, though nobody may look before the wait.
  void issue(Copy copy, bool at_once);
  // The thread's copies since its last group become one.
  void commit(int thread);

  // Ends the thread's copies but those of its `pending` latest groups and those in no group yet; their bytes are then in
  // place. Returns them in the order of their issue, until the next call. A copy whose source changed keeps 0xFF and is
  // named by changed().
  const std::vector<Copy>& end(int thread, int pending);
  // The same for all of the thread's copies, in a group or not.
  const std::vector<Copy>& end_all(int thread);
  const Copy* changed() const { return changed_ < 0 ? nullptr : &ended_[static_cast<size_t>(changed_)]; }

  // A copy under way that owns one of these bytes, null for none.
  const Copy* under_way(uintptr_t address, size_t bytes) const { return count_ == 0 ? nullptr : find(address, bytes); }
  // The first copy of a thread that is under way, null for none.
  const Copy* first_of(int thread) const;

 private:
  struct Pending {
    uint32_t slot;
    uint64_t group;
  };
  struct Issuer {
    std::vector<Pending> pending;  // in the order of issue
    uint64_t group = 0;            // that the next copy will belong to
  };

  Issuer& issuer_of(int thread);
  const Copy* find(uintptr_t address, size_t bytes) const;
  const std::vector<Copy>& end_before(int thread, uint64_t group);

  uintptr_t low_ = 0;
  int threads_ = 0;
  size_t count_ = 0;  // under way
  std::vector<uint32_t> owner_;  // by 4 bytes of shared memory: a slot + 1, 0 for none
  std::vector<Copy> slots_;
  std::vector<uint32_t> free_;
  std::vector<Issuer> issuers_;  // by thread
  std::vector<Copy> ended_;
  int changed_ = -1;
};

}  // namespace igf::simt
