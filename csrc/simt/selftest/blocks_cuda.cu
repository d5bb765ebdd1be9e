// Rules between blocks: what orders them, and that they may wait for each other. Atomics.
#include "device/last_block.cuh"
#include "device/launch.cuh"
#include "device/ptx.cuh"
#include "device/reductions.cuh"
#include "simt/selftest/selftest.h"

namespace igf {
namespace {

using namespace device;
using simt::Bench;

constexpr int kThreads = 64;
constexpr int kBlocks = 8;

template <bool kBroken>
IGF_KERNEL(kThreads) write_own_row(float* out) {
  const int64_t row = kBroken ? block_x() / 2 : block_x();  // [0, kBlocks)
  store(out + row * kThreads + thread_x(), static_cast<float>(block_x()));
}

template <bool kBroken>
void blocks_write_the_same(const Bench& bench) {
  launch("write_own_row", &write_own_row<kBroken>, {kBlocks, 1, kThreads, 1}, bench.context, bench.out);
  bench.expect(5 * kThreads, 5.0f);
}
IGF_SELFTEST(blocks_write_the_same);

// In place, reading what the next block writes.
template <bool kBroken>
IGF_KERNEL(kThreads) double_in_place(float* out, const float* in) {
  const int64_t i = block_x() * kThreads + thread_x();
  store(out + i, 2.0f * load((kBroken ? out : in) + (i + kThreads) % (kBlocks * kThreads)));
}

template <bool kBroken>
void blocks_read_what_others_write(const Bench& bench) {
  launch("double_in_place", &double_in_place<kBroken>, {kBlocks, 1, kThreads, 1}, bench.context, bench.out, bench.in);
  bench.expect(3, 6.0f);
}
IGF_SELFTEST(blocks_read_what_others_write);

// The sum of all blocks' sums by the last of them, with either fence left out.
enum class Fences { kBoth, kNotBefore, kNotAfter };

template <Fences kFences>
IGF_KERNEL(kThreads) sum_by_last_block(const float* in, float* out, uint32_t* arrived) {
  IGF_SHARED_ARRAY(float, scratch, kThreads / kWarp);
  IGF_SHARED_ARRAY(uint32_t, is_last, 1);
  float total[1] = {load(in + block_x() * kThreads + thread_x())};
  row_sum<kThreads>(total, scratch);
  if (thread_x() == 0) {
    store(out + 1 + block_x(), total[0]);
    if constexpr (kFences != Fences::kNotBefore) device_fence();
    is_last[0] = atomic_add(arrived, 1u) == grid_x() - 1 ? 1 : 0;
    if constexpr (kFences != Fences::kNotAfter) device_fence();
  }
  block_barrier();  // is_last is set
  if (is_last[0] == 0 || thread_x() != 0) return;
  float sum = 0.0f;
  for (int64_t i = 0; i < grid_x(); ++i) sum += load_shared_by_blocks(out + 1 + i);
  store(out, sum);
}

template <Fences kFences>
void last_block(const Bench& bench) {
  launch("sum_by_last_block", &sum_by_last_block<kFences>, {kBlocks, 1, kThreads, 1}, bench.context, bench.in,
         bench.out, bench.counters);
  bench.expect(0, kBlocks * 63 * 32);
}

template <bool kBroken>
void fence_before_the_count(const Bench& bench) {
  last_block<kBroken ? Fences::kNotBefore : Fences::kBoth>(bench);
}
IGF_SELFTEST(fence_before_the_count);

template <bool kBroken>
void fence_after_the_count(const Bench& bench) {
  last_block<kBroken ? Fences::kNotAfter : Fences::kBoth>(bench);
}
IGF_SELFTEST(fence_after_the_count);

// The same by device/last_block.cuh. Without the word no block knows that the others are done.
template <bool kBroken>
IGF_KERNEL(kThreads) rows_then_sum(const float* in, float* out, uint32_t* arrived) {
  const int64_t i = block_x() * kThreads + thread_x();
  store(out + 1 + i, 2.0f * load(in + i));
  if (!kBroken && !is_last_block(arrived, static_cast<uint32_t>(grid_x()))) return;
  if (kBroken && block_x() != grid_x() - 1) return;
  if (thread_x() != 0) return;
  float sum = 0.0f;
  for (int64_t j = 0; j < grid_x() * kThreads; ++j) sum += load_shared_by_blocks(out + 1 + j);
  store(out, sum);
}

template <bool kBroken>
void the_word_for_the_last_block(const Bench& bench) {
  launch("rows_then_sum", &rows_then_sum<kBroken>, {kBlocks, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         bench.counters);
  bench.expect(0, 2 * kBlocks * 63 * 32);
  bench.expect_count(0, 0);
}
IGF_SELFTEST(the_word_for_the_last_block);

// Block 1 waits for a flag of block 0.
template <bool kBroken>
IGF_KERNEL(kThreads) pass_by_flag(const float* in, float* out, uint32_t* flag) {
  if (block_x() == 0) {
    store(out + thread_x(), load(in + thread_x()));
    block_barrier();  // the block's values are written
    if (thread_x() == 0) {
      if constexpr (!kBroken) device_fence();
      atomic_exchange(flag, 1u);
    }
  } else {
    if (thread_x() == 0) {
      while (atomic_or(flag, 0u) == 0) let_others_run();
      device_fence();
    }
    block_barrier();  // the flag is up
    store(out + kThreads + thread_x(), load_shared_by_blocks(out + thread_x()));
  }
}

template <bool kBroken>
void flag_between_blocks(const Bench& bench) {
  launch("pass_by_flag", &pass_by_flag<kBroken>, {2, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         bench.counters);
  bench.expect(kThreads + 63, 63.0f);
}
IGF_SELFTEST(flag_between_blocks);

// Two blocks take turns by one flag, without the word that lets others run.
IGF_KERNEL(32) take_turns(float* out, uint32_t* flag, int turns) {
  if (lane_index() != 0) return;
  for (int turn = 0; turn < turns; ++turn) {
    const uint32_t mine = static_cast<uint32_t>(2 * turn + block_x());
    while (atomic_add(flag, 0u) != mine) {
    }
    device_fence();
    store(out, (mine == 0 ? 0.0f : load_shared_by_blocks(out)) + 1.0f);
    device_fence();
    atomic_add(flag, 1u);
  }
}

void blocks_take_turns(const Bench& bench) {
  launch("take_turns", &take_turns, {2, 1, 32, 1}, bench.context, bench.out, bench.counters, 5);
  bench.expect(0, 10.0f);
}
IGF_SOUND(blocks_take_turns);

template <bool kBroken>
IGF_KERNEL(32) wait_for_flag(float* out, uint32_t* flag) {
  if (lane_index() == 0 && block_x() == 0 && !kBroken) atomic_exchange(flag, 1u);
  while (atomic_or(flag, 0u) == 0) let_others_run();
  if (block_x() == 0) store(out + lane_index(), 1.0f);
}

template <bool kBroken>
void flag_that_nobody_raises(const Bench& bench) {
  launch("wait_for_flag", &wait_for_flag<kBroken>, {2, 1, 32, 1}, bench.context, bench.out, bench.counters);
  bench.expect(31, 1.0f);
}
IGF_SELFTEST(flag_that_nobody_raises);

// More blocks than are resident: each takes rows until none is left.
template <bool kBroken>
IGF_KERNEL(kThreads) take_rows(const float* in, float* out, uint32_t* next, uint32_t rows) {
  IGF_SHARED_ARRAY(uint32_t, taken, 1);
  for (;;) {
    if (thread_x() == 0) taken[0] = atomic_add(next, 1u);
    block_barrier();  // the row is taken
    const uint32_t row = taken[0];
    if (row >= rows) return;
    store(out + row * kThreads + thread_x(), load(in + row * kThreads + thread_x()));
    if constexpr (!kBroken) block_barrier();  // all know the row: the next may be taken
  }
}

template <bool kBroken>
void rows_by_a_counter(const Bench& bench) {
  launch("take_rows", &take_rows<kBroken>, {5, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         bench.counters, 12u);
  bench.expect(11 * kThreads + 7, 7.0f);
  bench.expect_count(0, 17);
}
IGF_SELFTEST(rows_by_a_counter);

// Atomics do not race with each other; a plain read beside them does.
template <bool kBroken>
IGF_KERNEL(kThreads) count_in_shared(const float* in, float* out) {
  IGF_SHARED_ARRAY(uint32_t, bins, 8);
  if (thread_x() < 8) bins[thread_x()] = 0;
  block_barrier();  // the bins are zero
  atomic_add(&bins[static_cast<int>(load(in + thread_x())) % 8], 1u);
  if constexpr (!kBroken) block_barrier();  // all are counted
  if (thread_x() < 8) store(out + thread_x(), static_cast<float>(bins[thread_x()]));
}

template <bool kBroken>
void atomics_then_a_plain_read(const Bench& bench) {
  launch("count_in_shared", &count_in_shared<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < 8; ++i) bench.expect(i, 8.0f);
}
IGF_SELFTEST(atomics_then_a_plain_read);

// A lock between warps of a block, passed on by block fences.
template <bool kBroken>
IGF_KERNEL(kThreads) add_under_lock(float* out) {
  IGF_SHARED_ARRAY(uint32_t, lock, 1);
  IGF_SHARED_ARRAY(float, sum, 1);
  if (thread_x() == 0) lock[0] = 0, sum[0] = 0.0f;
  block_barrier();  // the lock is open
  if (lane_index() == 0) {
    while (atomic_exchange(&lock[0], 1u) != 0) let_others_run();
    if constexpr (!kBroken) block_fence();
    sum[0] += 1.0f;
    block_fence();
    atomic_exchange(&lock[0], 0u);
  }
  block_barrier();  // all warps have added
  if (thread_x() == 0) store(out, sum[0]);
}

template <bool kBroken>
void lock_in_shared_memory(const Bench& bench) {
  launch("add_under_lock", &add_under_lock<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.out);
  bench.expect(0, 2.0f);
}
IGF_SELFTEST(lock_in_shared_memory);

// A fence of the block orders nothing for other blocks.
template <bool kBroken>
IGF_KERNEL(1) publish(float* out, uint32_t* flag) {
  if (block_x() == 0) {
    store(out, 1.0f);
    if constexpr (kBroken) {
      block_fence();
    } else {
      device_fence();
    }
    atomic_exchange(flag, 1u);
  } else {
    while (atomic_or(flag, 0u) == 0) let_others_run();
    device_fence();
    store(out + 1, load_shared_by_blocks(out));
  }
}

template <bool kBroken>
void block_fence_between_blocks(const Bench& bench) {
  launch("publish", &publish<kBroken>, {2, 1, 1, 1}, bench.context, bench.out, bench.counters);
  bench.expect(1, 1.0f);
}
IGF_SELFTEST(block_fence_between_blocks);

// The same without fences, by accesses that are their own; an atomic that is not orders nothing.
template <bool kBroken>
IGF_KERNEL(kThreads) pass_by_release(const float* in, float* out, uint32_t* flag) {
  if (block_x() == 0) {
    store(out + thread_x(), load(in + thread_x()));
    block_barrier();  // the block's values are written
    if (thread_x() == 0) {
      if constexpr (kBroken) {
        atomic_exchange(flag, 1u);
      } else {
        ptx::store_release(flag, 1u);
      }
    }
  } else {
    if (thread_x() == 0) {
      while (ptx::load_acquire(flag) == 0) let_others_run();
    }
    block_barrier();  // the flag is up
    store(out + kThreads + thread_x(), load_shared_by_blocks(out + thread_x()));
  }
}

template <bool kBroken>
void release_and_acquire(const Bench& bench) {
  launch("pass_by_release", &pass_by_release<kBroken>, {2, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         bench.counters);
  bench.expect(kThreads + 63, 63.0f);
}
IGF_SELFTEST(release_and_acquire);

// The block that counts last adds up what all have stored.
template <bool kBroken>
IGF_KERNEL(32) count_and_read(const float* in, float* out, uint32_t* arrived) {
  if (lane_index() != 0) return;
  store(out + 1 + block_x(), load(in + block_x()));
  const uint32_t before = kBroken ? (ptx::add_release(arrived, 1u), atomic_add(arrived, 0u) - 1)
                                  : ptx::add_acquire_release(arrived, 1u);
  if (before != grid_x() - 1) return;
  float sum = 0.0f;
  for (int64_t i = 0; i < grid_x(); ++i) sum += load_shared_by_blocks(out + 1 + i);
  store(out, sum);
}

template <bool kBroken>
void count_with_acquire(const Bench& bench) {
  launch("count_and_read", &count_and_read<kBroken>, {kBlocks, 1, 32, 1}, bench.context, bench.in, bench.out,
         bench.counters);
  bench.expect(0, 28.0f);
}
IGF_SELFTEST(count_with_acquire);

IGF_KERNEL(32) change_by_atomics(uint32_t* counters, int32_t* as_int, uint64_t* wide, float* sum) {
  const uint32_t lane = static_cast<uint32_t>(lane_index());
  atomic_add(counters, lane);
  atomic_max(counters + 1, lane);
  atomic_min(as_int + 2, -static_cast<int32_t>(lane));
  atomic_or(counters + 3, 1u << lane);
  atomic_add(wide + 2, uint64_t{1} << 33);
  if (lane == 0) store(sum, 0.0f);
  warp_barrier();  // the sum is zero
  atomic_add(sum, 0.5f);
}

void results_of_atomics(const Bench& bench) {
  launch("change_by_atomics", &change_by_atomics, {1, 1, 32, 1}, bench.context, bench.counters,
         reinterpret_cast<int32_t*>(bench.counters), reinterpret_cast<uint64_t*>(bench.counters), bench.out);
  bench.expect_count(0, 496);
  bench.expect_count(1, 31);
  bench.expect_count(2, static_cast<uint32_t>(-31));
  bench.expect_count(3, 0xffffffffu);
  bench.expect_count(4, 0);
  bench.expect_count(5, 64);
  bench.expect(0, 16.0f);
}
IGF_SOUND(results_of_atomics);

IGF_KERNEL(kThreads) number_threads(float* out) {
  const int64_t block = block_y() * grid_x() + block_x();
  store(out + block * 16 + thread_index(), static_cast<float>(100 * thread_y() + thread_x() + 10 * grid_y()));
}

void two_dimensions(const Bench& bench) {
  launch("number_threads", &number_threads, {3, 4, 8, 2}, bench.context, bench.out);
  for (int i = 0; i < 12 * 16; ++i) bench.expect(i, static_cast<float>(i % 16 / 8 * 100 + i % 8 + 40));
}
IGF_SOUND(two_dimensions);

}  // namespace
}  // namespace igf
