// What is known of every element of writable memory: who wrote it last, who has read it since.
#pragma once

#include <cstdint>

#include "simt/core.h"

namespace igf::simt {

enum class Touch : uint8_t { kRead, kWrite, kAtomic };

// Begins a launch over the registered buffers; ends it.
void begin_shadow();
void end_shadow();

// An access of the current thread to anything but its own stack: checks that the memory is the thread's to touch, all
// of it, and that the access races with no other; fails the launch otherwise. Returns the buffer, null in shared memory
// and for constants.
const Buffer* touch(uintptr_t address, uint32_t bytes, Touch kind, Where where);

}  // namespace igf::simt
