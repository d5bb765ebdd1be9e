// Arrays on a thread's stack that stand for registers of matrix products under way (wgmma): who touches them when.
//
// Rules (PTX ISA 9.0, "wgmma.fence", "wgmma.wait_group"):
//   - the sums of a product and its A in registers may not be touched between its issue and the wait that covers it
//   - between a thread's touch of registers and a product that takes them stands a wgmma_fence; products of one shape that
//     add to the same sums one after the other need none between them
// From a thread's first wgmma_fence on all accesses to its stack are heard: plain ones by the hooks, and those of words.
// Threads that never say one pay nothing for it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "simt/core.h"

namespace igf::simt {

class RegisterWatch {
 public:
  static constexpr size_t kBytes = 32 << 10;  // up to the stack's end: more than any kernel has of local variables

  explicit RegisterWatch(const Thread& thread);

  bool holds(uintptr_t address, size_t bytes) const { return address >= low_ && address + bytes <= low_ + kBytes; }
  // A fence: nothing counts as touched.
  void fence() { touched_.fill(0); }
  // A touch; false where it may not be.
  bool touch(uintptr_t address, size_t bytes) {
    const size_t begin = register_of(address), last = register_of(address + bytes - 1);
    if (address < low_ || begin / 64 != last / 64) {
      if (taken(address, bytes) >= 0) return false;
      set(touched_, address, bytes, true);
      return true;
    }
    const uint64_t mask = (~uint64_t{0} >> (63 - (last - begin))) << (begin % 64);
    touched_[begin / 64] |= mask;
    return (taken_[begin / 64] & mask) == 0;
  }
  // The registers belong to products, or to none.
  void take(uintptr_t address, size_t bytes) { set(taken_, address, bytes, true); }
  void give_back(uintptr_t address, size_t bytes) { set(taken_, address, bytes, false); }
  // The first of these bytes that was touched since the last fence, or is taken; -1 for none. Counted from `address`.
  int touched(uintptr_t address, size_t bytes) const { return first(touched_, address, bytes); }
  int taken(uintptr_t address, size_t bytes) const { return first(taken_, address, bytes); }

 private:
  static constexpr size_t kRegister = 4;
  static constexpr size_t kRegisters = kBytes / kRegister;
  using Bits = std::array<uint64_t, kRegisters / 64>;

  size_t register_of(uintptr_t address) const { return (address - low_) / kRegister; }
  void set(Bits& bits, uintptr_t address, size_t bytes, bool on);
  int first(const Bits& bits, uintptr_t address, size_t bytes) const;

  uintptr_t low_;
  Bits touched_{};
  Bits taken_{};
};

// Begins to hear what the thread whose turn it is does to its stack.
void watch_registers(RegisterWatch& watch);

// The thread whose turn it is touches memory: true for its own stack, where it is heard. Fails the launch where registers
// of a product under way are touched.
bool heard(uintptr_t address, size_t bytes, bool writes, Where where);
// The same of a word that fills registers.
void heard_word(const void* registers, size_t bytes, Site site);

}  // namespace igf::simt
