// The emulator's half of binding/cuda/context.cpp.
#include "binding/cuda/context.h"

#include <algorithm>
#include <vector>

#include "simt/options.h"

namespace igf {

DeviceContext device_context(const Tensor&, int64_t wanted) {
  // Launches run one after the other, each to its end: one set of counters is enough.
  static std::vector<uint32_t> arrivals;
  const int64_t count = std::max<int64_t>(wanted, kArrivalCounters);
  arrivals.assign(static_cast<size_t>(count), 0);  // a launch that failed may have left them counting
  const uintptr_t begin = reinterpret_cast<uintptr_t>(arrivals.data());
  const size_t bytes = arrivals.size() * sizeof(uint32_t);
  simt::buffers().name(begin, bytes, "arrivals");
  simt::buffers().add(begin, bytes, sizeof(uint32_t), false);
  DeviceContext context{nullptr, simt::options().multiprocessors, arrivals.data()};
  context.architecture = simt::options().architecture;
  context.arrival_count = count;
  return context;
}

}  // namespace igf
