// Kernels of tensor and bulk copies, for the emulator's own tests: some right, the others break one rule each.
#include "simt/selftest/async_kernels.cuh"

namespace igf::selftest {
namespace {

// Warp 0 has written the tile, and its first thread may store it.
IGF_DEVICE void fill(unsigned char* tile, float first IGF_SITE_PARAMETER) {
  write_tile(tile, first);
  ptx::proxy_fence_shared(IGF_ONLY_SITE);
  device::warp_barrier(kAllLanes IGF_SITE);  // all lanes have written
}

// Right: two tiles leave one place; the place is written again once it was read.
IGF_KERNEL(kThreads) stores_right(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  for (int i = 0; i < 8; ++i) {
    if (lane_index() == 0) ptx::bulk_wait_read<0>();
    warp_barrier();  // the tile before has been read
    fill(tile, static_cast<float>(i * 256));
    if (lane_index() == 0) {
      ptx::store_tile<2>(a.out, {0, i * kRows}, tile);
      ptx::bulk_commit();
    }
  }
  if (lane_index() == 0) ptx::bulk_wait<0>();
  warp_barrier();  // the results are seen by all
  for (int i = 0; i < 64; ++i) store(a.sums + i * kColumns + lane_index(), load(a.output + i * kColumns + lane_index()));
}

// Right: tile r of the sums gets 3 * (1024 + r * 32 + c) by a tensor copy, a bulk copy and threads, in any order.
IGF_KERNEL(kThreads) additions_right(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  unsigned char* const plain = tiles + kTileBytes;
  if (thread_x() < kWarp) {
    fill(tiles, 1024);
    if (lane_index() == 0) {
      ptx::add_tile<2>(a.added, {0, kRows}, tiles);
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
    }
  } else {
    float* const row = reinterpret_cast<float*>(plain);
    for (int i = 0; i < 256; i += kWarp) row[i + lane_index()] = static_cast<float>(1024 + i + lane_index());
    ptx::proxy_fence_shared();
    warp_barrier();  // all lanes have written
    if (lane_index() == 0) {
      ptx::bulk_add(a.sums + kRows * kColumns, plain, kTileBytes);
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
    }
    for (int i = 4 * lane_index(); i < 256; i += 4 * kWarp) {
      const float first = static_cast<float>(1024 + i);
      ptx::add_four(a.sums + 256 + i, first, first + 1, first + 2, first + 3);
    }
  }
}

// Right: boxes that lie partly and wholly outside of the tensor; zeros arrive, and all bytes are counted.
IGF_KERNEL(kThreads) outside_right(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, 4 * kTileBytes);
    ptx::load_tile<2>(tiles, a.in, {0, -3}, full);
    ptx::load_tile<2>(tiles + kTileBytes, a.in, {8, 60}, full);
    ptx::load_tile<2>(tiles + 2 * kTileBytes, a.in, {-20, 8}, full);
    ptx::load_tile<2>(tiles + 3 * kTileBytes, a.in, {0, 100}, full);
  }
  ptx::mbarrier_wait(full, 0);
  if (thread_x() >= kWarp) return;
  for (int i = 0; i < 4; ++i) give(a.output, tiles + i * kTileBytes, i * kRows);
  if (lane_index() == 0) {
    ptx::store_tile<2>(a.added, {0, -3}, tiles);
    ptx::store_tile<2>(a.added, {8, 60}, tiles + kTileBytes);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
}

// Right: a tile in order, and a run of bytes.
IGF_KERNEL(kThreads) plain_right(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::prefetch_tensor_map(a.plain);
    ptx::mbarrier_arrive_expecting(full, kTileBytes + 512);
    ptx::load_tile<2>(tiles, a.plain, {0, 0}, full);
    ptx::bulk_load(tiles + kTileBytes, a.input + 256, 512, full);
  }
  ptx::mbarrier_wait(full, 0);
  for (int i = thread_x(); i < 256 + 128; i += kThreads) store(a.output + i, reinterpret_cast<float*>(tiles)[i]);
}

IGF_KERNEL(kThreads) read_early(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    bring(tile, a.in, 0, full);
    store(a.output, *element(tile, 0, 0));  // too early
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) written_under_way(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    bring(tile, a.in, 0, full);
    *element(tile, 3, 5) = 1;  // too early
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) brought_over_what_is_read(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.in, 0, full);
  ptx::mbarrier_wait(full, 0);
  block_barrier();  // all have seen the first tile's phase
  if (thread_x() >= kWarp) give(a.output, tile, 0);  // reads
  if (thread_x() == 0) {
    bring(tile, a.in, kRows, full);  // writes
    ptx::mbarrier_wait(full, 1);
  }
}

IGF_KERNEL(kThreads) source_written_again(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  fill(tile, 0);
  if (lane_index() == 0) {
    ptx::store_tile<2>(a.out, {0, 0}, tile);
    ptx::bulk_commit();
    *element(tile, 0, 0) = 1;  // before it was read
    ptx::bulk_wait_read<0>();
  }
}

// The issuer waits, the others are not ordered after it.
IGF_KERNEL(kThreads) source_written_by_others(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  fill(tile, 0);
  if (lane_index() == 0) {
    ptx::store_tile<2>(a.out, {0, 0}, tile);
    ptx::bulk_commit();
  }
  warp_barrier();  // orders the store's word, not the store
  if (lane_index() == 0) ptx::bulk_wait_read<0>();
  if (lane_index() == 1) *element(tile, 0, 0) = 1;
}

// Waits for the first of two groups, then writes to the source of the second.
IGF_KERNEL(kThreads) waits_for_too_few(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  if (thread_x() >= kWarp) return;
  fill(tiles, 0);
  fill(tiles + kTileBytes, 256);
  if (lane_index() == 0) {
    for (int i = 0; i < 2; ++i) {
      ptx::store_tile<2>(a.out, {0, i * kRows}, tiles + i * kTileBytes);
      ptx::bulk_commit();
    }
    ptx::bulk_wait_read<1>();
    *element(tiles, 0, 0) = 1;
    *element(tiles + kTileBytes, 0, 0) = 2;  // too early
    ptx::bulk_wait_read<0>();
  }
}

IGF_KERNEL(kThreads) not_committed(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  fill(tile, 0);
  if (lane_index() == 0) {
    ptx::store_tile<2>(a.out, {0, 0}, tile);
    ptx::bulk_wait_read<0>();
  }
}

IGF_KERNEL(kThreads) left_at_the_end(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  fill(tile, 0);
  if (lane_index() == 0) {
    ptx::add_tile<2>(a.added, {0, 0}, tile);
    ptx::bulk_commit();
  }
}

// The source was read; the result need not stand yet.
IGF_KERNEL(kThreads) result_read_early(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() >= kWarp) return;
  fill(tile, 0);
  if (lane_index() == 0) {
    ptx::store_tile<2>(a.out, {0, 0}, tile);
    ptx::bulk_commit();
    ptx::bulk_wait_read<0>();
    store(a.sums, load(a.output + 5));
    ptx::bulk_wait<0>();
  }
}

IGF_KERNEL(kThreads) sum_read_early(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  if (thread_x() < kWarp) {
    fill(tile, 0);
    if (lane_index() == 0) {
      ptx::bulk_add(a.sums, tile, kTileBytes);
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
    }
  }
  block_barrier();  // orders what the thread did, not the additions
  if (thread_x() == kWarp) store(a.output, load(a.sums + 7));
}

// What a store writes is loaded again before the store was waited for.
IGF_KERNEL(kThreads) loaded_before_it_is_stored(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() < kWarp) {
    fill(tiles, 0);
    if (lane_index() == 0) {
      ptx::store_tile<2>(a.out, {0, 0}, tiles);
      ptx::bulk_commit();
      ptx::bulk_wait_read<0>();
      bring(tiles + kTileBytes, a.out, 0, full);
    }
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) source_of_load_changes(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    bring(tile, a.out, 0, full);
    store(a.output + 9, 1.0f);
  }
  ptx::mbarrier_wait(full, 0);
}

// Where a tile of `kMap` stands: kOffset bytes into the dynamic block.
enum class Map { kSwizzled, kPlain };
template <Map kMap, int kOffset>
IGF_KERNEL(kThreads) tile_at(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tiles + kOffset, kMap == Map::kPlain ? a.plain : a.in, 0, full);
  ptx::mbarrier_wait(full, 0);
}

// A run of kBytes from kFrom bytes into the input to kTo bytes into the dynamic block.
template <int kTo, int kFrom, int kBytes>
IGF_KERNEL(kThreads) run_of(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, kBytes);
    ptx::bulk_load(tiles + kTo, reinterpret_cast<const char*>(a.input) + kFrom, kBytes, full);
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) other_dimensions(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, kTileBytes);
    ptx::load_tile<3>(tile, a.in, {0, 0, 0}, full);
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) no_map(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  TensorMap changed = a.in;
  changed.words[5] += 1;
  if (thread_x() == 0) bring(tile, changed, 0, full);
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) tile_in_global_memory(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(reinterpret_cast<unsigned char*>(a.output), a.in, 0, full);
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) beyond_the_buffer(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.beyond, 64, full);
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) four_misaligned(const IGF_GRID_CONSTANT AsyncArguments a) {
  if (thread_x() == 0) ptx::add_four(a.sums + 2, 1, 2, 3, 4);
}

constexpr AsyncKernel kKernels[] = {
    {"stores_right", &stores_right},
    {"additions_right", &additions_right},
    {"outside_right", &outside_right},
    {"plain_right", &plain_right},
    {"read_early", &read_early},
    {"written_under_way", &written_under_way},
    {"brought_over_what_is_read", &brought_over_what_is_read},
    {"source_written_again", &source_written_again},
    {"source_written_by_others", &source_written_by_others},
    {"waits_for_too_few", &waits_for_too_few},
    {"not_committed", &not_committed},
    {"left_at_the_end", &left_at_the_end},
    {"result_read_early", &result_read_early},
    {"sum_read_early", &sum_read_early},
    {"loaded_before_it_is_stored", &loaded_before_it_is_stored},
    {"source_of_load_changes", &source_of_load_changes},
    {"tile_misaligned", &tile_at<Map::kSwizzled, 512>},
    {"plain_tile_misaligned", &tile_at<Map::kPlain, 64>},
    {"tile_past_the_end", &tile_at<Map::kPlain, 3 * 1024 + 128>},
    {"run_misaligned_in_shared", &run_of<8, 0, 64>},
    {"run_misaligned_in_global", &run_of<0, 8, 64>},
    {"run_of_odd_bytes", &run_of<0, 0, 40>},
    {"run_past_the_end", &run_of<0, 64 * 128 - 32, 64>},
    {"other_dimensions", &other_dimensions},
    {"no_map", &no_map},
    {"tile_in_global_memory", &tile_in_global_memory},
    {"beyond_the_buffer", &beyond_the_buffer},
    {"four_misaligned", &four_misaligned},
};

}  // namespace

AsyncKernels copy_kernels() { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

}  // namespace igf::selftest
