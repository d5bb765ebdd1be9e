// The device's own words: qualifiers, indices, shared memory, barriers, shuffles.
//
// Kernels use these and never the raw ones, so that another execution of the same source has one file to replace.
#pragma once

#ifndef __CUDACC__
#error "device/words.cuh is for CUDA sources: compile with nvcc"
#endif

#include <cstdint>

#define IGF_DEVICE __device__ __forceinline__
#define IGF_KERNEL(max_threads) __global__ void __launch_bounds__(max_threads)

// A static array in shared memory: IGF_SHARED_ARRAY(float, partial, 32);
#define IGF_SHARED_ARRAY(type, name, count) __shared__ type name[count]

namespace igf::device {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

IGF_DEVICE int thread_x() { return static_cast<int>(threadIdx.x); }
IGF_DEVICE int thread_y() { return static_cast<int>(threadIdx.y); }
IGF_DEVICE int64_t block_x() { return blockIdx.x; }
IGF_DEVICE int64_t block_y() { return blockIdx.y; }
IGF_DEVICE int64_t grid_x() { return gridDim.x; }

// Waits for every thread of the block; shared memory written before is visible after.
IGF_DEVICE void block_barrier() { __syncthreads(); }

// The value of the lane whose number differs by `mask`; every lane of the warp must call it.
IGF_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(kAllLanes, value, mask); }

}  // namespace igf::device
