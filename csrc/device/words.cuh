// The device's own words: qualifiers, indices, shared memory, barriers, shuffles, votes, fences, atomics.
//
// Kernels use these and never the raw ones, so that the same source runs on a GPU (this file, by nvcc) and on a CPU
// (csrc/simt, by g++ with IGF_SIMT defined), where every word is checked. A word that one half lacks does not exist.
//
// Not covered: PTX instructions (device/ptx.cuh), reads and writes of memory (device/memory.cuh).
#pragma once

#include <cstdint>

#if defined(IGF_SIMT)

#include "simt/device/words.h"

#else

#ifndef __CUDACC__
#error "device/words.cuh is for CUDA sources: compile with nvcc, or with IGF_SIMT defined for the emulator"
#endif

#define IGF_DEVICE __device__ __forceinline__
// IGF_KERNEL(max_threads), or IGF_KERNEL(max_threads, blocks) when the compiler must leave registers for that many
// blocks of a multiprocessor.
#define IGF_KERNEL(...) __global__ void __launch_bounds__(__VA_ARGS__)

// A kernel's parameter that is read where the launch put it, by address too: const IGF_GRID_CONSTANT TensorMap map.
#define IGF_GRID_CONSTANT __grid_constant__

// A static array in shared memory: IGF_SHARED_ARRAY(float, partial, 32); its first element stands on 16 bytes.
#define IGF_SHARED_ARRAY(type, name, count) __shared__ alignas(16) type name[count]

// The dynamic block of shared memory, sized by the launch, on 1024 bytes: IGF_DYNAMIC_SHARED(tiles); names an
// unsigned char*.
#define IGF_DYNAMIC_SHARED(name)                                \
  extern __shared__ unsigned char igf_dynamic_shared_bytes[]; \
  unsigned char* const name =                                   \
      igf_dynamic_shared_bytes + ((1024u - (::igf::device::shared_address(igf_dynamic_shared_bytes) & 1023u)) & 1023u)

// Where in the source a word was said: a last parameter of device functions that pass it on. Nothing on a GPU; the
// emulator names it in its messages and tables.
//   IGF_DEVICE float twice(const float* p IGF_SITE_PARAMETER) { return 2 * load(p IGF_SITE); }
#define IGF_SITE_PARAMETER
#define IGF_SITE
// The same for a function without other parameters.
#define IGF_ONLY_SITE_PARAMETER
#define IGF_ONLY_SITE

namespace igf::device {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

IGF_DEVICE int thread_x() { return static_cast<int>(threadIdx.x); }
IGF_DEVICE int thread_y() { return static_cast<int>(threadIdx.y); }
IGF_DEVICE int64_t block_x() { return blockIdx.x; }
IGF_DEVICE int64_t block_y() { return blockIdx.y; }
IGF_DEVICE int64_t grid_x() { return gridDim.x; }
IGF_DEVICE int64_t grid_y() { return gridDim.y; }

// The thread's number in its block, and its place in its warp, [0, 32).
IGF_DEVICE int thread_index() { return static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); }
IGF_DEVICE int lane_index() { return thread_index() % kWarp; }

// The address of a shared variable as PTX instructions take it.
IGF_DEVICE uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Waits for every thread of the block; memory written before is visible to the block after.
IGF_DEVICE void block_barrier() { __syncthreads(); }

// The same, and tells every thread whether the predicate holds in any thread, or in how many.
IGF_DEVICE bool block_barrier_or(bool predicate) { return __syncthreads_or(predicate) != 0; }
IGF_DEVICE int block_barrier_count(bool predicate) { return __syncthreads_count(predicate); }

// Waits for the lanes of `lanes`; memory written before is visible to them after. Shuffles and votes do not order memory.
IGF_DEVICE void warp_barrier(uint32_t lanes = kAllLanes) { __syncwarp(lanes); }

// Every lane of `lanes` must come to the same word with the same `lanes`. T: 32 and 64 bit integers, float, double.
// The value of the lane whose number differs by `mask`; of lane `source`; of the lane `delta` below or above, the
// caller's own where there is none.
template <typename T>
IGF_DEVICE T shuffle_xor(T value, int mask, uint32_t lanes = kAllLanes) {
  return __shfl_xor_sync(lanes, value, mask);
}
template <typename T>
IGF_DEVICE T shuffle(T value, int source, uint32_t lanes = kAllLanes) {
  return __shfl_sync(lanes, value, source);
}
template <typename T>
IGF_DEVICE T shuffle_up(T value, int delta, uint32_t lanes = kAllLanes) {
  return __shfl_up_sync(lanes, value, delta);
}
template <typename T>
IGF_DEVICE T shuffle_down(T value, int delta, uint32_t lanes = kAllLanes) {
  return __shfl_down_sync(lanes, value, delta);
}

// Which lanes say yes (bit i = lane i), whether any does, whether all do; which lanes hold the caller's value.
IGF_DEVICE uint32_t ballot(bool predicate, uint32_t lanes = kAllLanes) { return __ballot_sync(lanes, predicate); }
IGF_DEVICE bool any_lane(bool predicate, uint32_t lanes = kAllLanes) { return __any_sync(lanes, predicate) != 0; }
IGF_DEVICE bool all_lanes(bool predicate, uint32_t lanes = kAllLanes) { return __all_sync(lanes, predicate) != 0; }
IGF_DEVICE uint32_t match_lanes(uint32_t value, uint32_t lanes = kAllLanes) { return __match_any_sync(lanes, value); }

// How many bits are set; the place of the lowest set bit plus one, 0 for none; zeros above the highest set bit.
IGF_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }
IGF_DEVICE int find_first_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)); }
IGF_DEVICE int leading_zeros(uint32_t bits) { return __clz(static_cast<int>(bits)); }

// Orders the caller's earlier writes before its later ones as the block, or the whole device, sees them. A flag raised
// by an atomic after device_fence() publishes what was written before; who has seen it fences too before reading.
IGF_DEVICE void block_fence() { __threadfence_block(); }
IGF_DEVICE void device_fence() { __threadfence(); }

// Atomic, unordered; the value before. T for add: int32_t, uint32_t, uint64_t, float; else int32_t, uint32_t, uint64_t.
// Adding floats from several threads has no fixed order: equal inputs do not give equal bits.
template <typename T>
IGF_DEVICE T atomic_add(T* place, T value) {
  if constexpr (sizeof(T) == 8) {
    return static_cast<T>(atomicAdd(reinterpret_cast<unsigned long long*>(place), static_cast<unsigned long long>(value)));
  } else {
    return atomicAdd(place, value);
  }
}
template <typename T>
IGF_DEVICE T atomic_max(T* place, T value) {
  if constexpr (sizeof(T) == 8) {
    return static_cast<T>(atomicMax(reinterpret_cast<unsigned long long*>(place), static_cast<unsigned long long>(value)));
  } else {
    return atomicMax(place, value);
  }
}
template <typename T>
IGF_DEVICE T atomic_min(T* place, T value) {
  if constexpr (sizeof(T) == 8) {
    return static_cast<T>(atomicMin(reinterpret_cast<unsigned long long*>(place), static_cast<unsigned long long>(value)));
  } else {
    return atomicMin(place, value);
  }
}
template <typename T>
IGF_DEVICE T atomic_exchange(T* place, T value) {
  if constexpr (sizeof(T) == 8) {
    return static_cast<T>(atomicExch(reinterpret_cast<unsigned long long*>(place), static_cast<unsigned long long>(value)));
  } else {
    return atomicExch(place, value);
  }
}
IGF_DEVICE uint32_t atomic_or(uint32_t* place, uint32_t value) { return atomicOr(place, value); }

// Lets other threads run: said in every turn of a loop that waits for another block.
IGF_DEVICE void let_others_run() { __nanosleep(64); }

// Ends the launch with an error: for what must not happen.
IGF_DEVICE void trap() { __trap(); }

}  // namespace igf::device

#endif  // IGF_SIMT
