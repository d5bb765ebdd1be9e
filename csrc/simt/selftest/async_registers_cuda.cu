// Kernels that set register budgets, for the emulator's own tests: one right, the others break one rule each.
#include "simt/selftest/async_kernels.cuh"

namespace igf::selftest {
namespace {

constexpr int kWarpgroups = 3 * 128;  // threads; they begin with 168 registers each

// Right: the producers' registers go to the consumers, and back.
IGF_KERNEL(kWarpgroups) handed_over(const IGF_GRID_CONSTANT AsyncArguments) {
  if (thread_x() < 128) {
    ptx::release_registers<40>();
  } else {
    ptx::claim_registers<232>();
    ptx::named_barrier_sync(1, 256);  // the warpgroups have met
    ptx::release_registers<168>();
  }
}

IGF_KERNEL(kWarpgroups) claims_too_much(const IGF_GRID_CONSTANT AsyncArguments) {
  if (thread_x() < 128) {
    ptx::release_registers<40>();
  } else {
    ptx::claim_registers<240>();
  }
}

IGF_KERNEL(kWarpgroups) claims_before_a_release_that_waits(const IGF_GRID_CONSTANT AsyncArguments) {
  if (thread_x() >= 128) ptx::claim_registers<232>();
  block_barrier();  // the producers release only after it
  if (thread_x() < 128) ptx::release_registers<40>();
}

IGF_KERNEL(kWarpgroups) some_warps(const IGF_GRID_CONSTANT AsyncArguments) {
  if (thread_x() < 96) ptx::release_registers<40>();
}

IGF_KERNEL(kWarpgroups) differently(const IGF_GRID_CONSTANT AsyncArguments) {
  if (thread_x() < 64) {
    ptx::release_registers<40>();
  } else {
    ptx::release_registers<56>();
  }
}

IGF_KERNEL(kWarpgroups) some_lanes(const IGF_GRID_CONSTANT AsyncArguments) {
  if (lane_index() < 16) ptx::release_registers<40>();
}

IGF_KERNEL(kWarpgroups) releases_more_than_it_has(const IGF_GRID_CONSTANT AsyncArguments) {
  ptx::release_registers<176>();
}

IGF_KERNEL(kWarpgroups) claims_less_than_it_has(const IGF_GRID_CONSTANT AsyncArguments) {
  ptx::claim_registers<160>();
}

IGF_KERNEL(kWarpgroups) again_without_meeting(const IGF_GRID_CONSTANT AsyncArguments) {
  ptx::release_registers<120>();
  ptx::release_registers<96>();
}

IGF_KERNEL(64) less_than_a_warpgroup(const IGF_GRID_CONSTANT AsyncArguments) { ptx::release_registers<40>(); }

constexpr AsyncKernel kKernels[] = {
    {"handed_over", &handed_over, kWarpgroups},
    {"claims_too_much", &claims_too_much, kWarpgroups},
    {"claims_before_a_release_that_waits", &claims_before_a_release_that_waits, kWarpgroups},
    {"some_warps", &some_warps, kWarpgroups},
    {"differently", &differently, kWarpgroups},
    {"some_lanes", &some_lanes, kWarpgroups},
    {"releases_more_than_it_has", &releases_more_than_it_has, kWarpgroups},
    {"claims_less_than_it_has", &claims_less_than_it_has, kWarpgroups},
    {"again_without_meeting", &again_without_meeting, kWarpgroups},
    {"less_than_a_warpgroup", &less_than_a_warpgroup, 64},
};

}  // namespace

AsyncKernels register_kernels() { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

}  // namespace igf::selftest
