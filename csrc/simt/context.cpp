// The emulator's half of binding/cuda/context.cpp.
#include "binding/cuda/context.h"

#include <array>

#include "simt/options.h"

namespace igf {

DeviceContext device_context(const Tensor&) {
  // Launches run one after the other, each to its end: one set of counters is enough.
  static std::array<uint32_t, kArrivalCounters> arrivals;
  arrivals.fill(0);  // a launch that failed may have left them counting
  const uintptr_t begin = reinterpret_cast<uintptr_t>(arrivals.data());
  simt::buffers().name(begin, sizeof arrivals, "arrivals");
  simt::buffers().add(begin, sizeof arrivals, sizeof(uint32_t), false);
  DeviceContext context{nullptr, simt::options().multiprocessors, arrivals.data()};
  context.architecture = simt::options().architecture;
  return context;
}

}  // namespace igf
