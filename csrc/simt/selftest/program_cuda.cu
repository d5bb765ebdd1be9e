// A kernel that does what a table says: random programs, whose races a test works out by itself.
#include <exception>
#include <string>

#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "simt/buffers.h"
#include "simt/control.h"

namespace igf {
namespace {

using namespace device;

constexpr int kCells = 64;

// What a thread does in one step.
enum Step : int32_t { kNothing, kRead, kWrite, kAtomic, kBlockBarrier, kWarpBarrier, kNamedSync, kNamedArrive };

struct Instruction {
  int32_t step;
  int32_t argument;  // the cell; the mask of the lanes; the barrier's number * 2048 + its number of threads
};

// instructions[step][thread]; cells in shared memory, or in global memory where `cells` is given.
IGF_KERNEL(256) run_program(const Instruction* instructions, int steps, int threads, uint32_t* cells) {
  IGF_SHARED_ARRAY(uint32_t, own, kCells);
  uint32_t* const memory = cells == nullptr ? own : cells;
  uint32_t sum = 0;
  for (int i = 0; i < steps; ++i) {
    const Instruction* now = instructions + i * threads + thread_index();
    const int32_t argument = load(&now->argument);
    switch (load(&now->step)) {
      case kRead: sum += memory[argument]; break;
      case kWrite: memory[argument] = sum; break;
      case kAtomic: atomic_add(memory + argument, 1u); break;
      case kBlockBarrier: block_barrier(); break;
      case kWarpBarrier: warp_barrier(static_cast<uint32_t>(argument)); break;
      case kNamedSync: ptx::named_barrier_sync(argument / 2048, argument % 2048); break;
      case kNamedArrive: ptx::named_barrier_arrive(argument / 2048, argument % 2048); break;
      default: break;
    }
  }
}

}  // namespace
}  // namespace igf

// Runs a program on one block; returns what was complained of, "" for nothing.
IGF_SIMT_EXPORT const char* igf_simt_program(const int32_t* instructions, int steps, int threads, int global) {
  using namespace igf;
  static std::string text;
  static uint32_t cells[kCells];
  text.clear();
  simt::buffers().clear();
  const size_t bytes = static_cast<size_t>(steps) * static_cast<size_t>(threads) * sizeof(Instruction);
  simt::buffers().add(reinterpret_cast<uintptr_t>(instructions), bytes, sizeof(int32_t), true);
  simt::buffers().add(reinterpret_cast<uintptr_t>(cells), sizeof cells, sizeof(uint32_t), false);
  try {
    device::launch("run_program", &run_program, {1, 1, threads, 1}, DeviceContext{},
                   reinterpret_cast<const Instruction*>(instructions), steps, threads, global != 0 ? cells : nullptr);
  } catch (const std::exception& error) {
    text = error.what();
  }
  simt::buffers().clear();
  return text.c_str();
}
