// setmaxnreg: how many registers the threads of a warp may use. The emulator has none; it keeps the counts.
//
// Rules (PTX ISA 9.0, "Miscellaneous Instructions: setmaxnreg"):
//   - all lanes of a warp and all warps of a warpgroup say the same word, and meet before the next one
//   - a release names no more than the warp has, a claim no fewer
//   - a claim waits until the block's pool holds what it lacks; releases fill the pool
// At the start a thread has what the launch bound leaves it: 65536 registers divided by the bound, in eights, 256 at
// most. A kernel with a second number in IGF_KERNEL starts with less; the emulator does not know of it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "simt/core.h"

namespace igf::simt {

struct RegisterWarp {
  int registers = 0;  // of each thread
  int wanted = 0;     // by a claim that waits; 0: none
  std::array<int, kWarpLanes> visits{};  // words that a lane has said
  // The words that the warp has said.
  struct Said {
    Word word;
    int registers;
    Site site;
    Mark mark;  // by the lane that said it first
  };
  std::vector<Said> said;
};

struct Registers {
  int pool = 0;  // of the block, counted as those of one thread of each warp
  std::vector<RegisterWarp> warps;
};

// "; 24 registers a thread are free" of a block whose claims wait.
std::string describe_pool(const Block& block);
// All threads of the block have ended: the warps of each warpgroup have said the same, or a fault.
void check_registers_at_end(const Block& block);

}  // namespace igf::simt
