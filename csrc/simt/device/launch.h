// The emulator's half of device/launch.cuh.
#pragma once

#include "simt/bounds.h"
#include "simt/launch.h"

namespace igf::device {

// Runs kernel(arguments...) to its end. Raises std::runtime_error naming the kernel when the launch is refused, and
// when the kernel breaks a rule.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, const DeviceContext& context,
            const Arguments&... arguments) {
  // One object holds the arguments, as the constant bank of a GPU does: all of it may be read by every thread.
  auto call = [kernel, arguments...] { kernel(arguments...); };
  using Call = decltype(call);
  const simt::LaunchFacts facts{name,
                                simt::thread_bound(reinterpret_cast<const void*>(kernel)),
                                shape.blocks_x,
                                shape.blocks_y,
                                shape.threads_x,
                                shape.threads_y,
                                shape.shared_bytes,
                                0};
  simt::launch(facts, [](void* given) { (*static_cast<Call*>(given))(); }, &call, sizeof call);
  simt::require_zero_counters(name, context.arrivals, context.arrival_count);
}

}  // namespace igf::device
