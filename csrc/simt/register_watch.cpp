#include "simt/register_watch.h"

#include <algorithm>
#include <bit>

#include "simt/fault.h"
#include "simt/wgmma_state.h"

namespace igf::simt {

RegisterWatch::RegisterWatch(const Thread& thread)
    : low_(reinterpret_cast<uintptr_t>(thread.context.stack_low) + thread.context.stack_bytes - kBytes) {}

void RegisterWatch::set(Bits& bits, uintptr_t address, size_t bytes, bool on) {
  if (address < low_ || bytes == 0) return;
  const size_t last = std::min(register_of(address + bytes - 1), kRegisters - 1);
  for (size_t i = register_of(address); i <= last;) {
    const size_t count = std::min(64 - i % 64, last - i + 1);
    const uint64_t mask = (~uint64_t{0} >> (64 - count)) << (i % 64);
    if (on) {
      bits[i / 64] |= mask;
    } else {
      bits[i / 64] &= ~mask;
    }
    i += count;
  }
}

int RegisterWatch::first(const Bits& bits, uintptr_t address, size_t bytes) const {
  if (address < low_ || bytes == 0) return -1;
  const size_t begin = register_of(address);
  const size_t last = std::min(register_of(address + bytes - 1), kRegisters - 1);
  for (size_t i = begin; i <= last;) {
    const size_t count = std::min(64 - i % 64, last - i + 1);
    const uint64_t found = bits[i / 64] >> (i % 64) & (~uint64_t{0} >> (64 - count));
    if (found != 0) return static_cast<int>((i - begin + static_cast<size_t>(std::countr_zero(found))) * kRegister);
    i += count;
  }
  return -1;
}

void watch_registers(RegisterWatch& watch) {
  turn.thread->watch = &watch;
  turn.watch = &watch;
  turn.stack_bytes = 0;
}

bool heard(uintptr_t address, size_t bytes, bool writes, Where where) {
  const Context& context = turn.thread->context;
  if (address - reinterpret_cast<uintptr_t>(context.stack_low) >= context.stack_bytes) return false;
  if (bytes > 0 && !turn.watch->touch(address, bytes)) fail_of_registers_under_way(address, bytes, writes, where);
  return true;
}

void heard_word(const void* registers, size_t bytes, Site site) {
  if (turn.watch != nullptr) heard(reinterpret_cast<uintptr_t>(registers), bytes, true, where_of(site));
}

}  // namespace igf::simt
