#include "simt/selftest/local_array.h"

#include "device/launch.cuh"
#include "device/memory.cuh"

namespace igf::selftest {
namespace {

using namespace device;

// Right for an index in [0, kLocalElements); elsewhere it writes past its array, which nothing but the address lane sees.
IGF_KERNEL(32) local_array(float* output, int64_t index) {
  float values[kLocalElements];
  for (int i = 0; i < kLocalElements; ++i) values[i] = 0.0f;
  values[index] = 1.0f;
  if (thread_x() < kLocalElements) store(output + thread_x(), values[thread_x()]);
}

}  // namespace

void start_local_array(float* output, int64_t index, const DeviceContext& context) {
  launch("local_array", &local_array, {1, 1, 32, 1}, context, output, index);
}

}  // namespace igf::selftest
