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

// Fails the launch unless the bytes lie in one array of shared memory.
void check_shared_bounds(uintptr_t address, uint32_t bytes, Touch kind, Where where);

// These bytes of shared memory are an mbarrier's from here on: any other access to them fails the launch.
void give_to_mbarrier(uintptr_t address, uint32_t bytes, Where where);

// Of the last writes of these bytes, and changes by atomics, the first that precedes this turn and for which fenced() does not hold; null:
// there is none. Writes of asynchronous copies need no fence.
const Mark* unfenced_write(uintptr_t address, uint32_t bytes, Where where, bool (*fenced)(const Mark&));

}  // namespace igf::simt
