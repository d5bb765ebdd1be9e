// Runs a kernel: every thread of every block as a fiber on the calling OS thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/events.h"

namespace igf::simt {

// Calls body(parameters) once on every thread. `parameters` are bytes that any thread may read. Throws
// std::runtime_error when the launch is impossible, and when the kernel breaks a rule: then with the rule, the threads
// and the places.
void launch(const LaunchFacts& facts, void (*body)(void*), void* parameters, size_t parameter_bytes);

// Throws std::runtime_error unless the counters that launches find their last block with (DeviceContext::arrivals; null
// for none) are zero, as a launch must leave them.
void require_zero_counters(const char* kernel, const uint32_t* counters, int64_t count);

// True from the beginning of a launch to its clean end: tells an error of a kernel from one of the op around it.
extern bool launch_failed;

}  // namespace igf::simt
