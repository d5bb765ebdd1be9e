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

#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace igf::device {

namespace detail {

// Lets a kernel have `bytes` of dynamic shared memory on `device`, the current one. Asked for whatever the number is:
// without asking, a kernel has 48 KiB less its static arrays. A limit is never lowered, or the launch that another host
// thread is about to make would be refused.
inline cudaError_t allow_shared_memory(int device, const void* kernel, int64_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int64_t> allowed;  // by device and kernel
  const std::lock_guard<std::mutex> lock(mutex);
  int64_t& most = allowed[{device, kernel}];
  if (bytes <= most) return cudaSuccess;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess) most = bytes;
  return error;
}

}  // namespace detail

// Starts kernel(arguments...) on the context's stream. Raises std::runtime_error naming the kernel when the launch is
// refused; an error while it runs shows at a later synchronisation, as with any kernel.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, const DeviceContext& context,
            const Arguments&... arguments) {
  const dim3 grid(static_cast<unsigned>(shape.blocks_x), static_cast<unsigned>(shape.blocks_y));
  const dim3 block(static_cast<unsigned>(shape.threads_x), static_cast<unsigned>(shape.threads_y));
  constexpr int64_t kAlignment = 1024;
  const int64_t shared = shape.shared_bytes == 0 ? 0 : shape.shared_bytes + kAlignment - 1;
  const void* const entry = reinterpret_cast<const void*>(kernel);
  // The launch's own answer: cudaGetLastError() would also give what an earlier call left behind.
  const auto start = [&](Parameters... values) {
    void* pointers[] = {static_cast<void*>(&values)...};
    return cudaLaunchKernel(entry, grid, block, pointers, static_cast<size_t>(shared),
                            static_cast<cudaStream_t>(context.stream));
  };
  // dim3 would take such counts modulo 2^32, and run too few blocks without a word.
  constexpr int64_t kMostBlocks = 0x7fffffff;
  const bool fits = shape.blocks_x <= kMostBlocks && shape.blocks_y <= kMostBlocks;
  cudaError_t error = fits ? cudaSuccess : cudaErrorInvalidConfiguration;
  if (error == cudaSuccess && shared > 0) error = detail::allow_shared_memory(context.device, entry, shared);
  if (error == cudaSuccess) error = start(arguments...);
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": the launch of " + std::to_string(shape.blocks_x) + " x " +
                             std::to_string(shape.blocks_y) + " blocks of " + std::to_string(shape.threads_x) + " x " +
                             std::to_string(shape.threads_y) + " threads with " + std::to_string(shared) +
                             " bytes of dynamic shared memory failed: " + cudaGetErrorString(error));
  }
}

}  // namespace igf::device

#endif  // IGF_SIMT
