// The one way to start a kernel.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "device/context.h"

namespace igf::device {

struct LaunchShape {
  int64_t blocks_x;
  int64_t blocks_y;
  int threads_x;
  int threads_y;
};

// Starts kernel(arguments...) on the context's stream. Raises std::runtime_error naming the kernel when the launch is
// refused; an error while it runs shows at a later synchronisation, as with any kernel.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, const DeviceContext& context,
            const Arguments&... arguments) {
  const dim3 grid(static_cast<unsigned>(shape.blocks_x), static_cast<unsigned>(shape.blocks_y));
  const dim3 block(static_cast<unsigned>(shape.threads_x), static_cast<unsigned>(shape.threads_y));
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(context.stream)>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": the launch of " + std::to_string(shape.blocks_x) + " x " +
                             std::to_string(shape.blocks_y) + " blocks failed: " + cudaGetErrorString(error));
  }
}

}  // namespace igf::device
