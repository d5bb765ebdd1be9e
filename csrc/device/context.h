// What a launcher must know of the device and of its data: plain C++, shared by kernels and the code that calls them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace igf {

// Counters that every launch may use to find its last block (device/last_block.cuh); more are asked for.
inline constexpr int kArrivalCounters = 32;

// Where work goes. `stream` is a cudaStream_t; void*, so that callers need no CUDA header.
struct DeviceContext {
  void* stream;
  int multiprocessors;  // of the current device
  uint32_t* arrivals;   // [arrival_count] in global memory, zero; each launch leaves them zero for the next
  int64_t shared_bytes = 48 << 10;  // shared memory that one block may have at most, static and dynamic
  int device = 0;                   // its number; the current one
  int architecture = 80;            // its compute capability, 10 major + minor: 80, 86, 89, 90, 100, 120
  int64_t arrival_count = kArrivalCounters;
};

// Element types that kernels read and write.
enum class Element : int32_t { kFloat, kBfloat16, kHalf };

inline size_t element_bytes(Element element) { return element == Element::kFloat ? 4 : 2; }

// Whether an address, null included, is a multiple of `bytes`: what an access of that width asks for.
inline bool stands_on(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

inline int64_t ceil_div(int64_t numerator, int64_t denominator) { return (numerator + denominator - 1) / denominator; }

}  // namespace igf
