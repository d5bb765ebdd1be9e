// Who gets which counters for finding the last block of a launch (DeviceContext::arrivals).
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf {

// At least `count` counters in the memory of `device`, zero whenever no launch is using them: for the launches that
// follow one another on `stream`, a cudaStream_t of that device. Launches that may run at the same time get different
// ones: each stream has its own, and so has each stream of each capture into a CUDA graph, because a replay runs beside
// whatever the streams do by then. A graph must not run beside a second instance of itself. `device` must be current.
// May be called during a capture, the first time too. Raises std::runtime_error.
uint32_t* arrivals_of(int device, void* stream, int64_t count = kArrivalCounters);

}  // namespace igf
