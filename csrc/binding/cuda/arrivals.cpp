// The counters' memory, which is kept until the process ends: launches and graphs may use it as long as they live.
#include "binding/cuda/arrivals.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <compare>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

#include "device/context.h"

namespace igf {
namespace {

// One set of counters is a place, 128 bytes or more, which no two owners share; places are cut from pieces of this many.
constexpr int64_t kCountersAtOnce = 32768;

// Whose launches follow one another. Captures are numbered from 1 in a process; 0: launches that are not captured.
// Launches that ask for more counters have another place than those that ask for fewer.
struct Owner {
  int device;
  cudaStream_t stream;
  unsigned long long capture;
  int64_t counters;  // a power of two
  auto operator<=>(const Owner&) const = default;
};

void require(cudaError_t error, const char* what, int device) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("device ") + std::to_string(device) + ": " + what + ": " +
                           cudaGetErrorString(error));
}

// A capture under way anywhere in the process forbids allocations and waiting; for the scope, not this thread's, which
// have nothing to do with what is captured.
class BesideCaptures {
 public:
  BesideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~BesideCaptures() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  BesideCaptures(const BesideCaptures&) = delete;
  BesideCaptures& operator=(const BesideCaptures&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // then the one that was before
};

// Fills with zeros and waits for it: a fill on the legacy stream would be under way still when a launch on a
// non-blocking stream follows, for which nobody waits.
cudaError_t fill_with_zeros(void* memory, size_t bytes) {
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return error;
  error = cudaMemsetAsync(memory, 0, bytes, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  const cudaError_t destroyed = cudaStreamDestroy(stream);
  return error == cudaSuccess ? destroyed : error;
}

class Places {
 public:
  uint32_t* of(const Owner& owner) {
    const std::lock_guard<std::mutex> lock(mutex_);
    uint32_t*& place = owned_[owner];
    if (place == nullptr) place = take(owner);
    return place;
  }

 private:
  struct Fresh {
    uint32_t* next = nullptr;
    int64_t left = 0;  // counters
  };

  uint32_t* take(const Owner& owner) {
    Fresh& fresh = fresh_[owner.device];
    if (fresh.left < owner.counters) {
      const int64_t counters = std::max(kCountersAtOnce, owner.counters);
      fresh = {allocate(owner.device, counters), counters};
    }
    uint32_t* const place = fresh.next;
    fresh.next += owner.counters;
    fresh.left -= owner.counters;
    return place;
  }

  static uint32_t* allocate(int device, int64_t counters) {
    const size_t bytes = static_cast<size_t>(counters) * sizeof(uint32_t);
    const BesideCaptures beside_captures;
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes), "no memory for the counters of launches", device);
    const cudaError_t error = fill_with_zeros(memory, bytes);
    if (error != cudaSuccess) cudaFree(memory);
    require(error, "the counters of launches could not be set to zero", device);
    return static_cast<uint32_t*>(memory);
  }

  std::mutex mutex_;
  std::map<Owner, uint32_t*> owned_;
  std::map<int, Fresh> fresh_;  // by device
};

}  // namespace

uint32_t* arrivals_of(int device, void* stream, int64_t count) {
  static Places places;
  const auto handle = static_cast<cudaStream_t>(stream);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long capture = 0;
  require(cudaStreamGetCaptureInfo(handle, &status, &capture), "the stream cannot be asked for its capture", device);
  const auto counters = std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(count, kArrivalCounters)));
  return places.of({device, handle, status == cudaStreamCaptureStatusActive ? capture : 0,
                    static_cast<int64_t>(counters)});
}

}  // namespace igf
