// Micro-kernels: mbarriers, tensor copies, bulk copies (sm_90 and later), register budgets (sm_90a).
#include "device/memory.cuh"
#include "device/ptx_barriers.cuh"
#include "device/ptx_bulk.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

constexpr int kColumns = 40;  // words of a row of the tensor
constexpr int kRows = 24;

// The words of a tile, as a tensor copy of boxes of `width` words and kTileRows rows brings or takes them.
constexpr int kTileRows = 16;

constexpr TensorMapShape tensor(int width, Swizzle swizzle) {
  return {Element::kFloat, nullptr, 2, {kColumns, kRows}, {0, 4 * kColumns}, {width, kTileRows}, swizzle};
}
constexpr TensorMapShape kPlain = tensor(32, Swizzle::kNone);
constexpr TensorMapShape kSwizzled32 = tensor(8, Swizzle::k32);
constexpr TensorMapShape kSwizzled64 = tensor(16, Swizzle::k64);
constexpr TensorMapShape kSwizzled128 = tensor(32, Swizzle::k128);
// [2, 5, 3, 16] words, of which dimension 1 is the outer one in memory but one.
constexpr TensorMapShape kFourDimensions = {
    Element::kFloat, nullptr, 4, {16, 3, 5, 2}, {0, 64, 192, 960}, {8, 1, 8, 1}, Swizzle::k32};

// One thread begins the mbarrier for `arrivals`; all may use it after.
IGF_DEVICE void begin(uint64_t* barrier, int arrivals) {
  if (thread_x() == 0) {
    ptx::mbarrier_init(barrier, arrivals);
    ptx::mbarrier_init_fence();
  }
  block_barrier();  // the mbarrier stands
}

// The tile at columns [12, ...) of rows [-2, 14), or with kDimensions = 4 at (4, 2, -2, 1), as it lies in shared memory.
template <int kDimensions, int kWords>
IGF_KERNEL(32) load_box(const IGF_GRID_CONSTANT Arguments a) {
  if constexpr (ptx::kHasTensorCopies) {
    IGF_DYNAMIC_SHARED(tile);
    IGF_SHARED_ARRAY(uint64_t, full, 1);
    begin(full, 1);
    if (thread_x() == 0) {
      ptx::prefetch_tensor_map(a.map);
      ptx::mbarrier_arrive_expecting(full, 4 * kWords);
      if constexpr (kDimensions == 2) {
        ptx::load_tile<2>(tile, a.map, {12, -2}, full);
      } else {
        ptx::load_tile<4>(tile, a.map, {4, 2, -2, 1}, full);
      }
    }
    ptx::mbarrier_wait(full, 0);
    for (int i = thread_x(); i < kWords; i += kWarp) store(a.output + i, reinterpret_cast<uint32_t*>(tile)[i]);
  }
}

// The words of a tile, in the order of shared memory, go to columns [20, 52) of rows [-3, 13) of the output; with kAdds
// they are floats and are added, twice.
template <bool kAdds>
IGF_KERNEL(32) store_box(const IGF_GRID_CONSTANT Arguments a) {
  if constexpr (ptx::kHasTensorCopies) {
    IGF_DYNAMIC_SHARED(tile);
    for (int i = thread_x(); i < 32 * kTileRows; i += kWarp) reinterpret_cast<uint32_t*>(tile)[i] = load(a.input + i);
    ptx::proxy_fence_shared();
    warp_barrier();  // the tile is written
    if (thread_x() == 0) {
      if constexpr (kAdds) {
        ptx::add_tile<2>(a.map, {20, -3}, tile);
        ptx::add_tile<2>(a.map, {20, -3}, tile);
      } else {
        ptx::store_tile<2>(a.map, {20, -3}, tile);
      }
      ptx::bulk_commit();
      ptx::bulk_wait<0>();
    }
  }
}

// 64 floats come in two runs, the second first, and are added to the output, each twice: by a bulk copy and by fours.
IGF_KERNEL(32) runs(Arguments a) {
  if constexpr (ptx::kHasTensorCopies) {
    IGF_DYNAMIC_SHARED(run);
    IGF_SHARED_ARRAY(uint64_t, full, 1);
    begin(full, 1);
    if (thread_x() == 0) {
      ptx::mbarrier_arrive_expecting(full, 256);
      ptx::bulk_load(run, a.input + 32, 128, full);
      ptx::bulk_load(run + 128, a.input, 128, full);
    }
    ptx::mbarrier_wait(full, 0);
    float* const sums = reinterpret_cast<float*>(a.output);
    if (thread_x() == 0) {
      ptx::bulk_add(sums, run, 256);
      ptx::bulk_commit();
    }
    if (thread_x() < 16) {
      const float* const four = reinterpret_cast<float*>(run) + 4 * thread_x();
      ptx::add_four(sums + 4 * thread_x(), four[0], four[1], four[2], four[3]);
    }
    if (thread_x() == 0) ptx::bulk_wait_read<0>();
  }
}

// Two warps hand words to each other, around and around: each adds what the other one wrote.
IGF_KERNEL(64) phases(Arguments a) {
  if constexpr (ptx::kHasTensorCopies) {
    IGF_SHARED_ARRAY(uint64_t, met, 1);
    IGF_SHARED_ARRAY(uint32_t, words, 64);
    begin(met, 64);
    uint32_t mine = load(a.input + thread_x());
    for (int phase = 0; phase < 6; phase += 2) {
      words[thread_x()] = mine;
      ptx::mbarrier_arrive(met);
      ptx::mbarrier_wait(met, 0);  // all have written
      mine += words[63 - thread_x()];
      ptx::mbarrier_arrive(met);
      ptx::mbarrier_wait(met, 1);  // all have read
    }
    store(a.output + thread_x(), mine);
  }
}

// The first warpgroup's registers go to the two others; the words change places.
IGF_KERNEL(384, 1) budget(Arguments a) {
  const uint32_t word = load(a.input + thread_x());
  if constexpr (ptx::kHasWgmma) {
    if (thread_x() < 128) {
      ptx::release_registers<40>();
    } else {
      ptx::claim_registers<232>();
    }
  }
  store(a.output + 383 - thread_x(), word);
}

constexpr int kTensorWords = kColumns * kRows;

const MicroKernel kTable[] = {
    {"tensor_load", kTensorWords, 512, 1, 32, &load_box<2, 512>, &kPlain, Mapped::kInput, 2048},
    {"tensor_load_swizzle_32", kTensorWords, 128, 1, 32, &load_box<2, 128>, &kSwizzled32, Mapped::kInput, 2048},
    {"tensor_load_swizzle_64", kTensorWords, 256, 1, 32, &load_box<2, 256>, &kSwizzled64, Mapped::kInput, 2048},
    {"tensor_load_swizzle_128", kTensorWords, 512, 1, 32, &load_box<2, 512>, &kSwizzled128, Mapped::kInput, 2048},
    {"tensor_load_four_dimensions", 480, 64, 1, 32, &load_box<4, 64>, &kFourDimensions, Mapped::kInput, 2048},
    {"tensor_store", 512, kTensorWords, 1, 32, &store_box<false>, &kSwizzled128, Mapped::kOutput, 2048},
    {"tensor_add", 512, kTensorWords, 1, 32, &store_box<true>, &kSwizzled128, Mapped::kOutput, 2048},
    {"bulk_runs", 64, 64, 1, 32, &runs, nullptr, Mapped::kNothing, 256},
    {"mbarrier_phases", 64, 64, 1, 64, &phases},
    {"register_budget", 384, 384, 1, 384, &budget},
};

}  // namespace

Table async_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
