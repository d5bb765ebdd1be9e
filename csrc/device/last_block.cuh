// Work that follows the last block of a launch: a reduction over all blocks' results without a second launch.
#pragma once

#include "device/memory.cuh"

namespace igf::device {

// Counts the calling block as done. True, in every thread, in the block that is the last of `blocks`: it then sees all
// that the others wrote to global memory before their call (read with load_shared_by_blocks). Every thread of every
// block must call it, once a launch. `arrived` is DeviceContext::arrivals (or one of the counters behind it): zero
// before the launch, and zero again after it.
IGF_DEVICE bool is_last_block(uint32_t* arrived, uint32_t blocks) {
  IGF_SHARED_ARRAY(uint32_t, is_last, 1);
  block_barrier();  // all of this block's writes are made ...
  if (thread_index() == 0) {
    device_fence();  // ... and precede the count, as every block sees them
    const bool last = atomic_add(arrived, 1u) == blocks - 1;
    if (last) {
      device_fence();  // the others' writes precede what this block reads from here on
      atomic_exchange(arrived, 0u);
    }
    is_last[0] = last ? 1 : 0;
  }
  block_barrier();  // is_last is set
  return is_last[0] != 0;
}

}  // namespace igf::device
