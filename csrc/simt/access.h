// The words that read and write memory, as the emulator's half of the device headers calls them: they are checked, told
// to the observer with the place that said them, then done. Compiled without instrumentation.
#pragma once

#include <cstdint>

#include "simt/events.h"

namespace igf::simt {

// Copies `bytes` (1, 2, 4, 8 or 16, aligned to as many) to or from the caller's registers.
void read_memory(void* value, const void* place, uint32_t bytes, Word word, Site site);
void write_memory(void* place, const void* value, uint32_t bytes, Word word, Site site);

// Type of an atomic's operand.
enum class Number : uint8_t { kInt32, kUint32, kUint64, kInt64, kFloat };

// place = word(place, operand); returns the bits before. The bits of the narrow types stand in the low half.
uint64_t change_memory(void* place, uint64_t operand, Number number, Word word, Site site);

// Four additions to floats in global memory, on 16 bytes (device/ptx_bulk.cuh).
void add_four(float* place, const float* values, Site site);

// The same kinds of access, which are their own fences (device/ptx.cuh); `value` is added or stored.
uint32_t ordered_access(uint32_t* place, uint32_t value, Word word, Site site);

// An access by a word of its own (ptx): checked and told like the others, but done by the caller. Returns the address
// to use, 0 where the word is dropped.
uintptr_t checked_access(uintptr_t address, uint32_t bytes, Word word, Site site, bool writes);

}  // namespace igf::simt
