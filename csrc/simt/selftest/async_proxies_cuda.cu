// Kernels of proxy fences, for the emulator's own tests: some right, the others lack one fence each.
#include "simt/selftest/async_kernels.cuh"

namespace igf::selftest {
namespace {

// Who fences between the writes of warp 0 and the store of warp 1's first thread.
enum class Fence { kWriters, kIssuer, kMiddleman, kNobody, kBeforeTheWrites, kNotOrdered, kOfGlobal };
// How the tile leaves.
enum class Way { kStore, kAdd, kBulkAdd };

template <Fence kFence, Way kWay = Way::kStore>
IGF_KERNEL(kThreads) tile_leaves(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() < kWarp) {
    if (kFence == Fence::kBeforeTheWrites) ptx::proxy_fence_shared();
    write_tile(tile, 0);  // writes the tile
    if (kFence == Fence::kWriters) ptx::proxy_fence_shared();
    if (kFence == Fence::kOfGlobal) ptx::proxy_fence_global();
    if (kFence == Fence::kMiddleman) {
      warp_barrier();  // lane 5 comes after all writes
      if (lane_index() == 5) ptx::proxy_fence_shared();
    }
  }
  block_barrier();  // the tile is written
  if (kFence == Fence::kNotOrdered && thread_x() < kWarp) ptx::proxy_fence_shared();
  if (thread_x() != kWarp) return;
  if (kFence == Fence::kIssuer) ptx::proxy_fence_shared();
  if constexpr (kWay == Way::kStore) ptx::store_tile<2>(a.out, {0, 0}, tile);
  if constexpr (kWay == Way::kAdd) ptx::add_tile<2>(a.added, {0, 0}, tile);
  if constexpr (kWay == Way::kBulkAdd) ptx::bulk_add(a.sums, tile, kTileBytes);
  ptx::bulk_commit();
  ptx::bulk_wait_read<0>();
}

// Shared atomics are threads' writes too.
template <bool kFenced>
IGF_KERNEL(kThreads) counted_tile_leaves(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  float* const sums = reinterpret_cast<float*>(tile);
  for (int i = thread_x(); i < 256; i += kThreads) sums[i] = 0;
  ptx::proxy_fence_shared();
  block_barrier();  // all are zero
  atomic_add(sums + thread_x() % kWarp, 1.0f);
  if (kFenced) ptx::proxy_fence_shared();
  block_barrier();  // all have counted
  if (thread_x() != 0) return;
  ptx::bulk_add(a.sums, tile, kTileBytes);
  ptx::bulk_commit();
  ptx::bulk_wait_read<0>();
}

// A tile comes over bytes that threads have written.
template <bool kFenced>
IGF_KERNEL(kThreads) tile_comes_over_writes(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  if (thread_x() < kWarp) write_tile(tile, 0);  // writes the tile
  if (kFenced) ptx::proxy_fence_shared();
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.in, 0, full);
  ptx::mbarrier_wait(full, 0);
  if (thread_x() < kWarp) give(a.output, tile, 0);
}

// Threads write to global memory, a tensor copy brings it.
enum class Global { kRight, kNoFence, kFenceOfShared };
template <Global kGlobal>
IGF_KERNEL(kThreads) written_and_brought(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  for (int i = thread_x(); i < 256; i += kThreads) store(a.output + i, static_cast<float>(i));
  if (kGlobal == Global::kRight) ptx::proxy_fence_global();
  if (kGlobal == Global::kFenceOfShared) ptx::proxy_fence_shared();
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.out, 0, full);
  ptx::mbarrier_wait(full, 0);
  if (thread_x() < kWarp) give(a.sums, tile, 0);
}

// Right: what a copy brought leaves again without a fence.
IGF_KERNEL(kThreads) brought_and_stored(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() != 0) return;
  for (int i = 0; i < 8; ++i) {
    bring(tile, a.in, i * kRows, full);
    ptx::mbarrier_wait(full, i & 1);
    ptx::store_tile<2>(a.out, {0, i * kRows}, tile);
    ptx::bulk_commit();
    ptx::bulk_wait_read<0>();
  }
}

constexpr AsyncKernel kKernels[] = {
    {"fenced_by_writers", &tile_leaves<Fence::kWriters>},
    {"fenced_by_issuer", &tile_leaves<Fence::kIssuer>},
    {"fenced_by_middleman", &tile_leaves<Fence::kMiddleman>},
    {"counted_and_fenced", &counted_tile_leaves<true>},
    {"comes_over_fenced_writes", &tile_comes_over_writes<true>},
    {"written_fenced_and_brought", &written_and_brought<Global::kRight>},
    {"brought_and_stored", &brought_and_stored},
    {"nobody_fences_a_store", &tile_leaves<Fence::kNobody>},
    {"nobody_fences_an_addition", &tile_leaves<Fence::kNobody, Way::kAdd>},
    {"nobody_fences_a_bulk_addition", &tile_leaves<Fence::kNobody, Way::kBulkAdd>},
    {"fenced_before_the_writes", &tile_leaves<Fence::kBeforeTheWrites>},
    {"fence_not_ordered", &tile_leaves<Fence::kNotOrdered>},
    {"fence_of_global_memory", &tile_leaves<Fence::kOfGlobal>},
    {"counted_without_fence", &counted_tile_leaves<false>},
    {"comes_over_writes", &tile_comes_over_writes<false>},
    {"written_and_brought", &written_and_brought<Global::kNoFence>},
    {"written_and_brought_with_another_fence", &written_and_brought<Global::kFenceOfShared>},
};

}  // namespace

AsyncKernels proxy_kernels() { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

}  // namespace igf::selftest
