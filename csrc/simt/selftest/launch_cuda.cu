// Launches that a GPU refuses: too many threads or blocks, more than the kernel was compiled for, too much shared memory.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "simt/selftest/selftest.h"

namespace igf {
namespace {

using namespace device;
using simt::Bench;

constexpr int64_t kMostBlocksY = 65535;

IGF_KERNEL(1024) count_threads(float* out) { store(out + thread_index(), static_cast<float>(thread_index())); }

template <bool kBroken>
void too_many_threads(const Bench& bench) {
  launch("count_threads", &count_threads, {1, 1, kBroken ? 1025 : 1024, 1}, bench.context, bench.out);
  bench.expect(1023, 1023.0f);
}
IGF_SELFTEST(too_many_threads);

template <bool kBroken>
void too_many_threads_in_two_dimensions(const Bench& bench) {
  launch("count_threads", &count_threads, {1, 1, 32, kBroken ? 33 : 32}, bench.context, bench.out);
  bench.expect(1023, 1023.0f);
}
IGF_SELFTEST(too_many_threads_in_two_dimensions);

template <bool kBroken>
void no_threads(const Bench& bench) {
  launch("count_threads", &count_threads, {1, 1, kBroken ? 0 : 1, 1}, bench.context, bench.out);
  bench.expect(0, 0.0f);
}
IGF_SELFTEST(no_threads);

template <bool kBroken>
void no_blocks(const Bench& bench) {
  launch("count_threads", &count_threads, {kBroken ? 0 : 1, 1, 64, 1}, bench.context, bench.out);
  bench.expect(63, 63.0f);
}
IGF_SELFTEST(no_blocks);

template <bool kBroken>
void no_blocks_in_y(const Bench& bench) {
  launch("count_threads", &count_threads, {1, kBroken ? 0 : 1, 64, 1}, bench.context, bench.out);
  bench.expect(63, 63.0f);
}
IGF_SELFTEST(no_blocks_in_y);

IGF_KERNEL(1) last_block_writes(float* out) {
  if (block_y() == grid_y() - 1) store(out, static_cast<float>(block_y()));
}

template <bool kBroken>
void too_many_blocks_in_y(const Bench& bench) {
  launch("last_block_writes", &last_block_writes, {1, kMostBlocksY + (kBroken ? 1 : 0), 1, 1}, bench.context, bench.out);
  bench.expect(0, static_cast<float>(kMostBlocksY - 1));
}
IGF_SELFTEST(too_many_blocks_in_y);

// The bound is an expression of the instance's parameters, and a second argument follows it, as in kernels of ops.
template <int kRows>
IGF_KERNEL(32 * (kRows), 2) rows_of_a_warp(float* out) {
  store(out + thread_index(), static_cast<float>(kRows));
}

template <bool kBroken>
void more_threads_than_declared(const Bench& bench) {
  launch("rows_of_a_warp", &rows_of_a_warp<3>, {1, 1, 32, kBroken ? 4 : 3}, bench.context, bench.out);
  launch("rows_of_a_warp", &rows_of_a_warp<4>, {1, 1, 32, 4}, bench.context, bench.out);
  bench.expect(127, 4.0f);
}
IGF_SELFTEST(more_threads_than_declared);

void no_kernel(float* out) { store(out + thread_index(), 1.0f); }
IGF_KERNEL(32) a_kernel(float* out) { store(out + thread_index(), 1.0f); }

template <bool kBroken>
void function_that_is_no_kernel(const Bench& bench) {
  launch("no_kernel", kBroken ? &no_kernel : &a_kernel, {1, 1, 32, 1}, bench.context, bench.out);
  bench.expect(31, 1.0f);
}
IGF_SELFTEST(function_that_is_no_kernel);

IGF_KERNEL(32) both_kinds_of_shared(float* out) {
  IGF_DYNAMIC_SHARED(bytes);
  IGF_SHARED_ARRAY(float, line, (40 << 10) / 4);
  float* const first = reinterpret_cast<float*>(bytes);
  first[thread_x()] = 1.0f;
  line[thread_x()] = 2.0f;
  store(out + thread_x(), first[thread_x()] + line[thread_x()]);
}

// Each kind alone would fit into what sm_80 has.
template <bool kBroken>
void static_and_dynamic_shared_together(const Bench& bench) {
  launch("both_kinds_of_shared", &both_kinds_of_shared, {1, 1, 32, 1, (kBroken ? 140 : 120) << 10}, bench.context,
         bench.out);
  bench.expect(0, 3.0f);
}
IGF_SELFTEST(static_and_dynamic_shared_together);

}  // namespace
}  // namespace igf
