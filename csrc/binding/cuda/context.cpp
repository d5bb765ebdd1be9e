// The stream and the device's facts, through torch's C shim and the static CUDA runtime.
#include "binding/cuda/context.h"

#include <cuda_runtime_api.h>

#include <mutex>
#include <vector>

// Only a torch with CUDA has this symbol. Weak: the library also loads under a CPU-only torch, where the address is 0.
#pragma weak aoti_torch_get_current_cuda_stream

namespace igf {
namespace {

struct Facts {
  int multiprocessors = 0;  // 0 = not asked yet
  int shared_bytes = 0;
};

Facts facts_of(int device) {
  static std::mutex mutex;
  static std::vector<Facts> known;  // by device
  const std::lock_guard<std::mutex> lock(mutex);
  if (static_cast<size_t>(device) >= known.size()) known.resize(device + 1);
  Facts& facts = known[device];
  if (facts.multiprocessors == 0) {
    cudaError_t error = cudaDeviceGetAttribute(&facts.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&facts.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    }
    IGF_CHECK(error == cudaSuccess, "device ", device, ": ", cudaGetErrorString(error));
  }
  return facts;
}

// Zeroed counters for launches that look for their last block. Each launch takes the next place of a ring, so that
// launches in flight on several streams share one only when there are kPlaces of them.
uint32_t* next_arrivals(int device) {
  constexpr uint32_t kPlaces = 4096;
  struct Ring {
    uint32_t* counters = nullptr;
    uint32_t next = 0;
  };
  static std::mutex mutex;
  static std::vector<Ring> rings;  // by device
  const std::lock_guard<std::mutex> lock(mutex);
  if (static_cast<size_t>(device) >= rings.size()) rings.resize(device + 1);
  Ring& ring = rings[device];
  if (ring.counters == nullptr) {
    constexpr size_t kBytes = kPlaces * kArrivalCounters * sizeof(uint32_t);
    void* memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, kBytes);
    if (error == cudaSuccess) error = cudaMemset(memory, 0, kBytes);
    IGF_CHECK(error == cudaSuccess, "device ", device, ": ", kBytes, " bytes of counters: ", cudaGetErrorString(error),
              "; an op must have run once before it is captured into a CUDA graph");
    ring.counters = static_cast<uint32_t*>(memory);
  }
  ring.next = (ring.next + 1) % kPlaces;
  return ring.counters + ring.next * kArrivalCounters;
}

}  // namespace

DeviceContext device_context(const Tensor& tensor) {
  IGF_CHECK(&aoti_torch_get_current_cuda_stream != nullptr,
            "this torch was built without CUDA; install a torch with CUDA to run on a GPU");
  const int device = tensor.get_device_index();
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const Facts facts = facts_of(device);
  return {stream, facts.multiprocessors, next_arrivals(device), facts.shared_bytes};
}

}  // namespace igf
