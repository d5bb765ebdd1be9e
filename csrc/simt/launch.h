// Runs a kernel: every thread of every block as a fiber on the calling OS thread.
#pragma once

#include <cstddef>

#include "simt/events.h"

namespace igf::simt {

// Calls body(parameters) once on every thread. `parameters` are bytes that any thread may read. Throws
// std::runtime_error when the launch is impossible, and when the kernel breaks a rule: then with the rule, the threads
// and the places.
void launch(const LaunchFacts& facts, void (*body)(void*), void* parameters, size_t parameter_bytes);

// True from the beginning of a launch to its clean end: tells an error of a kernel from one of the op around it.
extern bool launch_failed;

}  // namespace igf::simt
