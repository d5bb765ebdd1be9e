// Micro-kernels: atomics, ordered words, named barriers, the last block. Each output is the same in whatever order the
// threads come.
#include "device/last_block.cuh"
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

template <typename T>
IGF_DEVICE T from_words(const uint32_t* words) {
  T value;
  if constexpr (sizeof(T) == 8) {
    value = static_cast<T>(load(words)) | static_cast<T>(load(words + 1)) << 32;
  } else {
    value = load(reinterpret_cast<const T*>(words));
  }
  return value;
}

// Places [0, 8) of type T in shared memory hold input[0...]; lane l applies its value, behind them, to place l % 8.
// output: the places afterwards.
template <typename T, typename Apply>
IGF_DEVICE void apply_to_places(const Arguments& a, T* places, Apply apply) {
  constexpr int kWords = sizeof(T) / 4;
  if (thread_x() < 8) places[thread_x()] = from_words<T>(a.input + kWords * thread_x());
  warp_barrier();  // the places hold their first values
  apply(places + thread_x() % 8, from_words<T>(a.input + kWords * (8 + thread_x())));
  warp_barrier();  // every lane has applied its value
  if (thread_x() < 8) store(reinterpret_cast<T*>(a.output) + thread_x(), places[thread_x()]);
}

template <typename T>
IGF_KERNEL(32) add_in_shared(Arguments a) {
  IGF_SHARED_ARRAY(T, places, 8);
  apply_to_places<T>(a, places, [](T* place, T value) { atomic_add(place, value); });
}

template <typename T>
IGF_KERNEL(32) max_in_shared(Arguments a) {
  IGF_SHARED_ARRAY(T, places, 8);
  apply_to_places<T>(a, places, [](T* place, T value) { atomic_max(place, value); });
}

template <typename T>
IGF_KERNEL(32) min_in_shared(Arguments a) {
  IGF_SHARED_ARRAY(T, places, 8);
  apply_to_places<T>(a, places, [](T* place, T value) { atomic_min(place, value); });
}

IGF_KERNEL(32) or_in_shared(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, places, 8);
  apply_to_places<uint32_t>(a, places, [](uint32_t* place, uint32_t value) { atomic_or(place, value); });
}

// 4 blocks of 32 threads count in global memory: output[0] is the count, output[1 + i] has the bits of the values that
// were there before, 32 i to 32 i + 31.
IGF_KERNEL(32) count_in_global(Arguments a) {
  const uint32_t before = atomic_add(a.output, 1u);
  atomic_or(a.output + 1 + before / 32 % 4, 1u << before % 32);
}

// Lane l exchanges its value input[l] with one place that holds 0: output[0] is the exclusive or of what all lanes got
// and of what remains, which is the exclusive or of all values.
IGF_KERNEL(32) exchange(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, place, 1);
  if (thread_x() == 0) place[0] = 0;
  warp_barrier();  // the place holds 0
  uint32_t all = atomic_exchange(place, load(a.input + thread_x()));
  warp_barrier();  // every lane has exchanged
  if (thread_x() == 0) all ^= place[0];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) all ^= shuffle_xor(all, mask);
  if (thread_x() == 0) store(a.output, all);
}

// Block 0 writes 32 words and raises a flag; block 1 waits for it and reads them. output[32 ...]: input, twice it.
IGF_KERNEL(32) publish(Arguments a) {
  uint32_t* flag = a.output + 64;
  if (block_x() == 0) {
    store(a.output + thread_x(), load(a.input + thread_x()));
    block_barrier();  // every thread's word is written before the flag is raised
    if (thread_x() == 0) ptx::store_release(flag, 1u);
  } else {
    if (thread_x() == 0) {
      while (ptx::load_acquire(flag) == 0) let_others_run();
    }
    block_barrier();  // the flag was seen
    store(a.output + 32 + thread_x(), 2 * load_shared_by_blocks(a.output + thread_x()));
  }
}

// 4 blocks write 32 words each and count themselves by an ordered addition; who comes last adds all of them.
// output[128]: the count, output[129]: the sum, output[130]: the blocks again, by the addition without a result.
IGF_KERNEL(32) add_in_order(Arguments a) {
  store(a.output + 32 * block_x() + thread_x(), load(a.input + 32 * block_x() + thread_x()));
  block_barrier();  // every thread's word is written before the block is counted
  if (thread_x() == 0) {
    ptx::add_release(a.output + 130, 1u);
    if (ptx::add_acquire_release(a.output + 128, 1u) == 3) {
      uint32_t sum = 0;
      for (int i = 0; i < 128; ++i) sum += load_shared_by_blocks(a.output + i);
      store(a.output + 129, sum);
    }
  }
}

// Two warps: the first writes and arrives at barrier 1, the second waits there and reads. output[l]: input[31 - l].
IGF_KERNEL(64) named_barrier(Arguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  if (thread_x() < 32) {
    words[31 - thread_x()] = load(a.input + thread_x());
    ptx::named_barrier_arrive(1, 64);
  } else {
    ptx::named_barrier_sync(1, 64);
    store(a.output + thread_x() - 32, words[thread_x() - 32]);
  }
}

// 8 blocks write one word each; the last adds them. output[8]: the sum, output[9]: how many blocks were last.
IGF_KERNEL(32) last_block(Arguments a) {
  if (thread_x() == 0) store(a.output + block_x(), load(a.input + block_x()));
  if (!is_last_block(a.arrived, 8)) return;
  if (thread_x() != 0) return;
  uint32_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += load_shared_by_blocks(a.output + i);
  store(a.output + 8, sum);
  atomic_add(a.output + 9, 1u);
}

const MicroKernel kTable[] = {
    {"atomic_add_uint32", 40, 8, 1, 32, &add_in_shared<uint32_t>},
    {"atomic_add_int32", 40, 8, 1, 32, &add_in_shared<int32_t>},
    {"atomic_add_uint64", 80, 16, 1, 32, &add_in_shared<uint64_t>},
    {"atomic_add_float", 40, 8, 1, 32, &add_in_shared<float>},
    {"atomic_max_uint32", 40, 8, 1, 32, &max_in_shared<uint32_t>},
    {"atomic_max_int32", 40, 8, 1, 32, &max_in_shared<int32_t>},
    {"atomic_max_uint64", 80, 16, 1, 32, &max_in_shared<uint64_t>},
    {"atomic_min_uint32", 40, 8, 1, 32, &min_in_shared<uint32_t>},
    {"atomic_min_int32", 40, 8, 1, 32, &min_in_shared<int32_t>},
    {"atomic_or", 40, 8, 1, 32, &or_in_shared},
    {"atomic_count", 0, 5, 4, 32, &count_in_global},
    {"atomic_exchange", 32, 1, 1, 32, &exchange},
    {"publish", 32, 65, 2, 32, &publish},
    {"add_in_order", 128, 131, 4, 32, &add_in_order},
    {"named_barrier", 32, 32, 1, 64, &named_barrier},
    {"last_block", 8, 10, 8, 32, &last_block},
};

}  // namespace

Table order_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
