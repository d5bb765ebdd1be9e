// The one way to start a kernel.
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf::device {

struct LaunchShape {
  int64_t blocks_x;
  int64_t blocks_y;
  int threads_x;
  int threads_y;
  int64_t shared_bytes = 0;  // of the dynamic block; 1023 are added to stand on 1024
};

}  // namespace igf::device

#if defined(IGF_SIMT)

#include "simt/device/launch.h"

#else

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace igf::device {

// Starts kernel(arguments...) on the context's stream. Raises std::runtime_error naming the kernel when the launch is
// refused; an error while it runs shows at a later synchronisation, as with any kernel.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, const DeviceContext& context,
            const Arguments&... arguments) {
  const dim3 grid(static_cast<unsigned>(shape.blocks_x), static_cast<unsigned>(shape.blocks_y));
  const dim3 block(static_cast<unsigned>(shape.threads_x), static_cast<unsigned>(shape.threads_y));
  constexpr int64_t kAlignment = 1024;
  constexpr int64_t kWithoutAsking = 48 << 10;  // more dynamic shared memory than this must be asked for
  const int64_t shared = shape.shared_bytes == 0 ? 0 : shape.shared_bytes + kAlignment - 1;
  // dim3 would take such counts modulo 2^32, and run too few blocks without a word.
  constexpr int64_t kMostBlocks = 0x7fffffff;
  const bool fits = shape.blocks_x <= kMostBlocks && shape.blocks_y <= kMostBlocks;
  cudaError_t error = fits ? cudaSuccess : cudaErrorInvalidConfiguration;
  if (error == cudaSuccess && shared > kWithoutAsking) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  if (error == cudaSuccess) {
    kernel<<<grid, block, shared, static_cast<cudaStream_t>(context.stream)>>>(arguments...);
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": the launch of " + std::to_string(shape.blocks_x) + " x " +
                             std::to_string(shape.blocks_y) + " blocks of " + std::to_string(shape.threads_x) + " x " +
                             std::to_string(shape.threads_y) + " threads with " + std::to_string(shared) +
                             " bytes of dynamic shared memory failed: " + cudaGetErrorString(error));
  }
}

}  // namespace igf::device

#endif  // IGF_SIMT
