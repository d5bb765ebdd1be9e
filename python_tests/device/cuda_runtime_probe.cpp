// A CUDA runtime of a few lines, in the place of the real one, under the code that prepares and makes launches: what it
// is asked for, and whether a device would have taken it, without a device.
#include <cuda_runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>

#include "binding/cuda/arrivals.h"
#include "device/launch.cuh"

namespace {

constexpr int kStaticBytes = 256;  // of every kernel's shared memory
constexpr int kUnasked = 48 << 10, kMost = 227 << 10;

struct Fill {
  void* memory = nullptr;
  size_t bytes = 0;
};
std::map<cudaStream_t, Fill> under_way;
std::map<std::pair<int, const void*>, int> dynamic_limits;  // by device
cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
unsigned long long capture = 0;  // 0: no stream is captured
cudaError_t left_behind = cudaSuccess;
int asked = 0;  // for limits
int current_device = 0;
int seen_number = 0;
float* seen_pointer = nullptr;

cudaError_t told(cudaError_t error) {
  if (error != cudaSuccess) left_behind = error;
  return error;
}

bool forbidden() { return capture != 0 && thread_mode != cudaStreamCaptureModeRelaxed; }

void kernel(int, float*) {}
void other_kernel(int, float*) {}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (forbidden()) return told(cudaErrorStreamCaptureUnsupported);
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xFF, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(0x51DE);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
// Fills are made when somebody waits for their stream, and not before.
cudaError_t cudaMemsetAsync(void* memory, int, size_t bytes, cudaStream_t stream) {
  under_way[stream] = {memory, bytes};
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (forbidden()) return told(cudaErrorStreamCaptureUnsupported);
  if (under_way.count(stream) != 0) std::memset(under_way[stream].memory, 0, under_way[stream].bytes);
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t*, const cudaGraphNode_t**,
#if CUDART_VERSION >= 13000
                                     const cudaGraphEdgeData**,
#endif
                                     size_t*) {
  *status = capture == 0 ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
  if (capture != 0) *id = capture;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* entry, cudaFuncAttribute, int bytes) {
  ++asked;
  if (bytes > kMost - kStaticBytes) return told(cudaErrorInvalidValue);
  dynamic_limits[{current_device, entry}] = bytes;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* entry, dim3, dim3, void** arguments, size_t shared, cudaStream_t) {
  const auto limit = dynamic_limits.find({current_device, entry});
  const int most = limit == dynamic_limits.end() ? kUnasked - kStaticBytes : limit->second;
  if (static_cast<int>(shared) > most) return told(cudaErrorInvalidValue);
  seen_number = *static_cast<int*>(arguments[0]);
  seen_pointer = *static_cast<float**>(arguments[1]);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = left_behind;
  left_behind = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t) { return "refused by the probe"; }

// What the test says: a capture begins (0: ends); the counters of a stream, null for an error; a launch on
// a device.
void begin_capture(unsigned long long id) { capture = id; }
bool mode_is_as_before() { return thread_mode == cudaStreamCaptureModeGlobal; }
unsigned* arrivals(int device, size_t stream, long count) {
  try {
    return igf::arrivals_of(device, reinterpret_cast<void*>(stream), count);
  } catch (const std::runtime_error&) {
    return nullptr;
  }
}
bool launches(int device, bool other, long shared_bytes, int number) {
  current_device = device;
  float place = 0.0f;
  try {
    igf::device::launch("probe", other ? &other_kernel : &kernel, {1, 1, 32, 1, shared_bytes},
                        igf::DeviceContext{nullptr, 1, nullptr, kMost, device}, number, &place);
  } catch (const std::runtime_error&) {
    return false;
  }
  return seen_number == number && seen_pointer == &place;
}
int times_asked() { return asked; }

}  // extern "C"
