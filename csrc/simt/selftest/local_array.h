// A kernel for the test of the address lane: it writes into an array of its own, at an index that it is given.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf::selftest {

inline constexpr int kLocalElements = 6;

// output[i] = the i-th of kLocalElements numbers, of which the one at `index` was set to 1 and the others to 0.
void start_local_array(float* output, int64_t index, const DeviceContext& context);

}  // namespace igf::selftest
