// The stream and the device's facts, through torch's C shim and the static CUDA runtime.
#include "binding/cuda/context.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "binding/cuda/arrivals.h"

// Only a torch with CUDA has this symbol. Weak: the library also loads under a CPU-only torch, where the address is 0.
#pragma weak aoti_torch_get_current_cuda_stream

namespace igf {
namespace {

struct Facts {
  int multiprocessors = 0;  // 0 = not asked yet
  int shared_bytes = 0;
  int architecture = 0;
};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  const cudaError_t error = cudaDeviceGetAttribute(&value, which, device);
  IGF_CHECK(error == cudaSuccess, "device ", device, ": ", cudaGetErrorString(error));
  return value;
}

Facts facts_of(int device) {
  static std::mutex mutex;
  static std::vector<Facts> known;  // by device
  const std::lock_guard<std::mutex> lock(mutex);
  if (static_cast<size_t>(device) >= known.size()) known.resize(device + 1);
  Facts& facts = known[device];
  if (facts.multiprocessors == 0) {
    facts.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    facts.architecture = 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
                         attribute(cudaDevAttrComputeCapabilityMinor, device);
#if !defined(IGF_HAS_SM_90A)
    // sm_90's own instructions are in code for sm_90a alone; without it an earlier architecture's runs there.
    if (facts.architecture == 90) facts.architecture = 80;
#endif
    facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device);  // the last: what says that all are known
  }
  return facts;
}

}  // namespace

DeviceContext device_context(const Tensor& tensor, int64_t arrivals) {
  arrivals = std::max<int64_t>(arrivals, kArrivalCounters);
  IGF_CHECK(&aoti_torch_get_current_cuda_stream != nullptr,
            "this torch was built without CUDA; install a torch with CUDA to run on a GPU");
  const int device = tensor.get_device_index();
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const Facts facts = facts_of(device);
  return {stream, facts.multiprocessors, arrivals_of(device, stream, arrivals), facts.shared_bytes, device,
          facts.architecture, arrivals};
}

}  // namespace igf
