// Places in a kernel as 32 bits, cheap to keep by the million: turned into file and line only for a message.
#pragma once

#include <cstdint>
#include <string>

#include "simt/site.h"

namespace igf::simt {

// 0: unknown. Bit 31: a word's site, by its number in a table; else a program counter, counted from where the library
// was loaded. Bit 30 is free for the user.
using Where = uint32_t;

constexpr Where kWhereIsSite = 1u << 31;
constexpr Where kWhereFree = 1u << 30;

Where where_of(Site site);
Where where_of(const void* program_counter);

// "csrc/ops/x/x_cuda.cu:57". Slow: it may run addr2line. Of a program counter the call before it is meant.
std::string describe(Where where);

// Tells whether the library may hold constants at this address: it is loaded there, and not writable.
bool is_constant(uintptr_t address, uint32_t bytes);
// "in a variable of the library ..." or an empty string.
bool is_library(uintptr_t address);

}  // namespace igf::simt
