// Micro-kernels: asynchronous copies from global to shared memory.
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

// Each lane copies kWords words to the place of lane 31 - l; output: the shared array.
template <int kWords, ptx::Cache kCache>
IGF_KERNEL(32) copy(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32 * kWords);
  ptx::cp_async<4 * kWords, kCache>(words + kWords * (31 - thread_x()), a.input + kWords * thread_x());
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  warp_barrier();  // every lane's copy has arrived
#pragma unroll
  for (int i = 0; i < kWords; ++i) store(a.output + 32 * i + thread_x(), words[32 * i + thread_x()]);
}

// Lane l copies l % (4 kWords + 1) bytes and fills its kWords words with zeros; by wait_all, without a group.
template <int kWords>
IGF_KERNEL(32) copy_zero_fill(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32 * kWords);
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[32 * i + thread_x()] = 0xffffffffu;
  warp_barrier();  // nothing is zero yet
  ptx::cp_async_zero_fill<4 * kWords>(words + kWords * thread_x(), a.input + kWords * thread_x(),
                                      thread_x() % (4 * kWords + 1));
  ptx::cp_async_wait_all();
  warp_barrier();  // every lane's copy has arrived
#pragma unroll
  for (int i = 0; i < kWords; ++i) store(a.output + 32 * i + thread_x(), words[32 * i + thread_x()]);
}

// Three groups of a lane, of which the first, then the second, then the last is waited for and read at once.
IGF_KERNEL(32) copy_groups(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 96);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    ptx::cp_async<4>(words + 32 * i + thread_x(), a.input + 32 * i + thread_x());
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<2>();
  store(a.output + thread_x(), words[thread_x()]);
  ptx::cp_async_wait<1>();
  store(a.output + 32 + thread_x(), words[32 + thread_x()]);
  ptx::cp_async_wait<0>();
  store(a.output + 64 + thread_x(), words[64 + thread_x()]);
}

const MicroKernel kTable[] = {
    {"cp_async_4", 32, 32, 1, 32, &copy<1, ptx::Cache::kBothLevels>},
    {"cp_async_8", 64, 64, 1, 32, &copy<2, ptx::Cache::kBothLevels>},
    {"cp_async_16", 128, 128, 1, 32, &copy<4, ptx::Cache::kBothLevels>},
    {"cp_async_16_second_level", 128, 128, 1, 32, &copy<4, ptx::Cache::kSecondLevel>},
    {"cp_async_4_zero_fill", 32, 32, 1, 32, &copy_zero_fill<1>},
    {"cp_async_8_zero_fill", 64, 64, 1, 32, &copy_zero_fill<2>},
    {"cp_async_16_zero_fill", 128, 128, 1, 32, &copy_zero_fill<4>},
    {"cp_async_groups", 96, 96, 1, 32, &copy_groups},
};

}  // namespace

Table copy_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
