// Kernels of mbarriers, for the emulator's own tests: some right, the others break one rule each.
#include "simt/selftest/async_kernels.cuh"

namespace igf::selftest {
namespace {

constexpr int kStages = 2;

// Who waits at what in a pipeline, wrong in one place each.
enum class Wrong { kNothing, kReleasedEarly, kReleasedByOneLane, kNoWaitForFull, kNoWaitForEmpty, kParity };

// Warp 0's first thread brings 8 tiles through two stages, warp 1 doubles them into the output.
template <Wrong kWrong>
IGF_KERNEL(kThreads) pipeline(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, kStages);
  IGF_SHARED_ARRAY(uint64_t, empty, kStages);
  if (thread_x() == 0) {
    for (int s = 0; s < kStages; ++s) {
      ptx::mbarrier_init(full + s, 1);
      ptx::mbarrier_init(empty + s, kWrong == Wrong::kReleasedByOneLane ? 1 : kWarp);
    }
    ptx::mbarrier_init_fence();
  }
  block_barrier();  // the mbarriers stand
  if (thread_x() == 0) {
    for (int i = 0; i < 8; ++i) {
      if (kWrong != Wrong::kNoWaitForEmpty) ptx::mbarrier_wait(empty + i % kStages, (i / kStages & 1) ^ 1);
      bring(tiles + i % kStages * kTileBytes, a.in, i * kRows, full + i % kStages);
    }
  }
  if (thread_x() < kWarp) return;
  for (int i = 0; i < 8; ++i) {
    const int stage = i % kStages;
    if (kWrong != Wrong::kNoWaitForFull) ptx::mbarrier_wait(full + stage, (i / kStages & 1) ^ (kWrong == Wrong::kParity ? 1 : 0));
    if (kWrong == Wrong::kReleasedEarly) ptx::mbarrier_arrive(empty + stage);
    for (int r = 0; r < kRows; ++r) {
      const float value = *element(tiles + stage * kTileBytes, r, lane_index());  // reads the stage
      store(a.output + (i * kRows + r) * kColumns + lane_index(), 2 * value);
    }
    if (kWrong == Wrong::kReleasedByOneLane && lane_index() == 0) ptx::mbarrier_arrive(empty + stage);
    if (kWrong != Wrong::kReleasedEarly && kWrong != Wrong::kReleasedByOneLane) ptx::mbarrier_arrive(empty + stage);
  }
}

// Right: what threads write before they arrive, those who wait see; twice, and again.
IGF_KERNEL(kThreads) arrivals_order_writes(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  IGF_SHARED_ARRAY(float, values, kThreads);
  begin(met, 1, kThreads);
  for (int round = 0; round < 6; ++round) {
    values[thread_x()] = static_cast<float>(thread_x() + round);
    ptx::mbarrier_arrive(met);
    ptx::mbarrier_wait(met, 0);  // phase 2 * round
    ptx::mbarrier_wait(met, 0);  // passes again
    store(a.output + round * kThreads + thread_x(), values[kThreads - 1 - thread_x()]);
    ptx::mbarrier_arrive(met);
    ptx::mbarrier_wait(met, 1);  // all have read: phase 2 * round + 1
  }
}

// Right: the bytes may come before they are announced, in one phase.
IGF_KERNEL(kThreads) announced_late(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::load_tile<2>(tile, a.in, {0, 0}, full);
    ptx::mbarrier_arrive_expecting(full, kTileBytes);
  }
  ptx::mbarrier_wait(full, 0);
  if (thread_x() < kWarp) give(a.output, tile, 0);
}

IGF_KERNEL(kThreads) not_fenced(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  if (thread_x() == 0) ptx::mbarrier_init(full, 1);
  block_barrier();  // the mbarrier stands, but the async proxy was not told
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, kTileBytes);
    ptx::load_tile<2>(tile, a.in, {0, 0}, full);
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) no_barrier_after_init(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_init(met, kThreads);
    ptx::mbarrier_init_fence();
  }
  ptx::mbarrier_arrive(met);
}

IGF_KERNEL(kThreads) never_begun(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 2);
  begin(met, 1, kThreads);
  ptx::mbarrier_wait(met + 1, 1);
}

IGF_KERNEL(kThreads) begun_twice(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, 1);
  if (thread_x() == 0) ptx::mbarrier_init(met, 2);
}

IGF_KERNEL(kThreads) overwritten(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, 1);
  if (thread_x() == 0) met[0] = 0;
}

IGF_KERNEL(kThreads) looked_at(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, 1);
  if (thread_x() == 0) store(a.output, static_cast<float>(load(met)));
}

IGF_KERNEL(kThreads) no_arrivals(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  if (thread_x() == 0) ptx::mbarrier_init(met, 0);
}

IGF_KERNEL(kThreads) misaligned(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 2);
  if (thread_x() == 0) ptx::mbarrier_init(reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(met) + 4), 1);
}

IGF_KERNEL(kThreads) in_global_memory(const IGF_GRID_CONSTANT AsyncArguments a) {
  if (thread_x() == 0) ptx::mbarrier_init(reinterpret_cast<uint64_t*>(a.output), 1);
}

IGF_KERNEL(kThreads) parity_of_two(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, 1);
  ptx::mbarrier_wait(met, 2);
}

// The phase has its one arrival, and waits for bytes.
IGF_KERNEL(kThreads) too_many_arrivals(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, kTileBytes);
    ptx::mbarrier_arrive(full);
    ptx::load_tile<2>(tile, a.in, {0, 0}, full);
  }
}

IGF_KERNEL(kThreads) too_few_arrivals(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, kThreads + 1);
  ptx::mbarrier_arrive(met);
  ptx::mbarrier_wait(met, 0);
}

// Announces `kBytes` for the loads of `kLoads` tiles.
template <int kBytes, int kLoads>
IGF_KERNEL(kThreads) announces(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tiles);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive_expecting(full, kBytes);
    for (int i = 0; i < kLoads; ++i) ptx::load_tile<2>(tiles + i * kTileBytes, a.in, {0, i * kRows}, full);
  }
  ptx::mbarrier_wait(full, 0);
}

IGF_KERNEL(kThreads) waits_for_ever(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, kThreads);
  ptx::mbarrier_arrive(met);
  ptx::mbarrier_wait(met, 0);
  ptx::mbarrier_wait(met, 1);  // nobody arrives in phase 1
}

// Two phases end while a thread waits for the first: on a GPU it may miss both, as their parities alternate.
IGF_KERNEL(kThreads) left_behind(const IGF_GRID_CONSTANT AsyncArguments) {
  IGF_SHARED_ARRAY(uint64_t, met, 1);
  begin(met, 1, 1);
  if (thread_x() == 0) {
    ptx::mbarrier_arrive(met);
    ptx::mbarrier_arrive(met);
  } else if (thread_x() == kWarp) {
    ptx::mbarrier_wait(met, 0);
  }
}

// One thread waits; the others are not ordered after it.
IGF_KERNEL(kThreads) one_waits_for_all(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.in, 0, full);
  if (thread_x() == kWarp) ptx::mbarrier_wait(full, 0);
  if (thread_x() >= kWarp) give(a.output, tile, 0);
}

IGF_KERNEL(kThreads) load_not_waited_for(const IGF_GRID_CONSTANT AsyncArguments a) {
  IGF_DYNAMIC_SHARED(tile);
  IGF_SHARED_ARRAY(uint64_t, full, 1);
  begin(full, 1, 1);
  if (thread_x() == 0) bring(tile, a.in, 0, full);
}

constexpr AsyncKernel kKernels[] = {
    {"pipeline_right", &pipeline<Wrong::kNothing>},
    {"arrivals_order_writes", &arrivals_order_writes},
    {"announced_late", &announced_late},
    {"released_early", &pipeline<Wrong::kReleasedEarly>},
    {"released_by_one_lane", &pipeline<Wrong::kReleasedByOneLane>},
    {"no_wait_for_full", &pipeline<Wrong::kNoWaitForFull>},
    {"no_wait_for_empty", &pipeline<Wrong::kNoWaitForEmpty>},
    {"wrong_parity", &pipeline<Wrong::kParity>},
    {"not_fenced", &not_fenced},
    {"no_barrier_after_init", &no_barrier_after_init},
    {"never_begun", &never_begun},
    {"begun_twice", &begun_twice},
    {"overwritten", &overwritten},
    {"looked_at", &looked_at},
    {"no_arrivals", &no_arrivals},
    {"misaligned", &misaligned},
    {"in_global_memory", &in_global_memory},
    {"parity_of_two", &parity_of_two},
    {"too_many_arrivals", &too_many_arrivals},
    {"too_few_arrivals", &too_few_arrivals},
    {"too_few_bytes", &announces<kTileBytes - 16, 1>},
    {"bytes_of_one_for_two", &announces<kTileBytes, 2>},
    {"too_many_bytes", &announces<kTileBytes + 16, 1>},
    {"bytes_without_copy", &announces<kTileBytes, 0>},
    {"waits_for_ever", &waits_for_ever},
    {"left_behind", &left_behind},
    {"one_waits_for_all", &one_waits_for_all},
    {"load_not_waited_for", &load_not_waited_for},
};

}  // namespace

AsyncKernels mbarrier_kernels() { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

}  // namespace igf::selftest
