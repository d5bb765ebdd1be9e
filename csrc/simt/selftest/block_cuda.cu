// Rules of the block: barriers, shared memory between threads of several warps, named barriers.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "simt/selftest/selftest.h"

namespace igf {
namespace {

using namespace device;
using simt::Bench;

constexpr int kThreads = 128;

template <bool kBroken>
IGF_KERNEL(kThreads) sum_by_first_thread(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, parts, kThreads);
  parts[thread_x()] = load(in + thread_x());
  if constexpr (!kBroken) block_barrier();  // every part is there
  if (thread_x() != 0) return;
  float total = 0.0f;
  for (int i = 0; i < kThreads; ++i) total += parts[i];
  store(out, total);
}

template <bool kBroken>
void barrier_in_reduction(const Bench& bench) {
  launch("sum_by_first_thread", &sum_by_first_thread<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  bench.expect(0, 2 * 63 * 32);
}
IGF_SELFTEST(barrier_in_reduction);

template <bool kBroken>
IGF_KERNEL(kThreads) shift_in_a_loop(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, line, kThreads);
  float value = load(in + thread_x());
  for (int turn = 0; turn < 3; ++turn) {
    line[thread_x()] = value;
    block_barrier();  // the line is whole
    value = line[(thread_x() + 32) % kThreads];
    if constexpr (!kBroken) block_barrier();  // the line is read and may be written again
  }
  store(out + thread_x(), value);
}

template <bool kBroken>
void barrier_at_loop_end(const Bench& bench) {
  launch("shift_in_a_loop", &shift_in_a_loop<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < kThreads; ++i) bench.expect(i, static_cast<float>((i + 96) % kThreads % 64));
}
IGF_SELFTEST(barrier_at_loop_end);

// Two buffers need one barrier a turn; with one buffer that is one too few.
template <bool kBroken>
IGF_KERNEL(kThreads) shift_by_two_buffers(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, lines, 2 * kThreads);
  float value = load(in + thread_x());
  for (int turn = 0; turn < 5; ++turn) {
    float* line = lines + (kBroken ? 0 : turn % 2 * kThreads);
    line[thread_x()] = value;
    block_barrier();  // the line is whole; the other one has been read by all
    value = line[(thread_x() + 1) % kThreads];
  }
  store(out + thread_x(), value);
}

template <bool kBroken>
void double_buffering(const Bench& bench) {
  launch("shift_by_two_buffers", &shift_by_two_buffers<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in,
         bench.out);
  for (int i = 0; i < kThreads; ++i) bench.expect(i, static_cast<float>((i + 5) % kThreads % 64));
}
IGF_SELFTEST(double_buffering);

template <bool kBroken>
IGF_KERNEL(kThreads) two_barriers(float* out) {
  if (kBroken && thread_x() < 64) {
    block_barrier();
  } else {
    block_barrier();
  }
  store(out + thread_x(), 1.0f);
}

template <bool kBroken>
void divergent_barrier(const Bench& bench) {
  launch("two_barriers", &two_barriers<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.out);
  bench.expect(kThreads - 1, 1.0f);
}
IGF_SELFTEST(divergent_barrier);

template <bool kBroken>
IGF_KERNEL(kThreads) leave_early(float* out, int width) {
  if (kBroken && thread_x() >= width) return;
  block_barrier();
  if (thread_x() < width) store(out + thread_x(), 1.0f);
}

template <bool kBroken>
void early_return(const Bench& bench) {
  launch("leave_early", &leave_early<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.out, 100);
  bench.expect(99, 1.0f);
}
IGF_SELFTEST(early_return);

// Warp 0 writes, warp 1 reads, by a named barrier of the two; warps 2 and 3 take no part.
template <bool kBroken>
IGF_KERNEL(kThreads) hand_over(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, values, 32);
  const int warp = thread_x() / kWarp;  // [0, 4)
  if (warp == 0) {
    values[lane_index()] = load(in + lane_index());
    ptx::named_barrier_arrive(3, 64);
  } else if (warp == 1) {
    if constexpr (!kBroken) ptx::named_barrier_sync(3, 64);
    store(out + lane_index(), values[lane_index()]);
  }
}

template <bool kBroken>
void named_barrier_orders(const Bench& bench) {
  launch("hand_over", &hand_over<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < kWarp; ++i) bench.expect(i, static_cast<float>(i));
}
IGF_SELFTEST(named_barrier_orders);

template <bool kBroken>
IGF_KERNEL(kThreads) count_differently(float* out) {
  const int warp = thread_x() / kWarp;  // [0, 4)
  if (warp < 2) ptx::named_barrier_sync(1, kBroken && warp == 1 ? 96 : 64);
  store(out + thread_x(), 1.0f);
}

template <bool kBroken>
void named_barrier_mismatch(const Bench& bench) {
  launch("count_differently", &count_differently<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.out);
  bench.expect(0, 1.0f);
}
IGF_SELFTEST(named_barrier_mismatch);

// Warp 1 waits for a partner that waits elsewhere.
template <bool kBroken>
IGF_KERNEL(64) wait_for_each_other(float* out) {
  if (kBroken && thread_x() >= kWarp) {
    ptx::named_barrier_sync(2, 64);
  } else {
    block_barrier();
  }
  store(out + thread_x(), 1.0f);
}

template <bool kBroken>
void deadlock(const Bench& bench) {
  launch("wait_for_each_other", &wait_for_each_other<kBroken>, {1, 1, 64, 1}, bench.context, bench.out);
  bench.expect(0, 1.0f);
}
IGF_SELFTEST(deadlock);

IGF_KERNEL(96) say_yes(float* out) {
  const bool some = block_barrier_or(thread_x() == 77);
  const bool none = block_barrier_or(false);
  const int many = block_barrier_count(thread_x() % 3 == 0);
  store(out + thread_x(), (some ? 1000.0f : 0.0f) + (none ? 500.0f : 0.0f) + static_cast<float>(many));
}

void barriers_with_predicates(const Bench& bench) {
  launch("say_yes", &say_yes, {1, 1, 96, 1}, bench.context, bench.out);
  for (int i = 0; i < 96; ++i) bench.expect(i, 1032.0f);
}
IGF_SOUND(barriers_with_predicates);

IGF_KERNEL(64) trap_in_thread(int where) {
  if (thread_x() == where) trap();
}

template <bool kBroken>
void trap_ends_the_launch(const Bench& bench) {
  launch("trap_in_thread", &trap_in_thread, {1, 1, 64, 1}, bench.context, kBroken ? 33 : -1);
}
IGF_SELFTEST(trap_ends_the_launch);

}  // namespace
}  // namespace igf
