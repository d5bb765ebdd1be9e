// Kernels that break the rules of asynchronous copies and matrix words, one rule each, for the emulator's own tests.
#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "simt/selftest/ptx_selftest.h"

namespace igf::selftest {
namespace {

using namespace device;

// Every kernel: input and output of kWords words; threads copy word by word unless the name says otherwise.
constexpr int kWords = 64;

// Right: copies, waits, meets, and reads what the neighbour copied.
IGF_KERNEL(32) copy_right(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<8>(words + 2 * thread_x(), a.input + 2 * thread_x());
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  block_barrier();  // every thread's copy has arrived
  store(a.output + thread_x(), words[31 - thread_x()]);
}

IGF_KERNEL(32) missing_wait(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_commit();
  block_barrier();  // orders nothing: the copies are under way
  store(a.output + thread_x(), words[thread_x()]);
  ptx::cp_async_wait<0>();
}

// Waits for the first of two groups and reads the second.
IGF_KERNEL(32) wait_for_too_few(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_commit();
  ptx::cp_async<4>(words + 32 + thread_x(), a.input + 32 + thread_x());
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  store(a.output + thread_x(), words[32 + thread_x()]);
  ptx::cp_async_wait<0>();
}

// A wait for groups does not cover what is in none.
IGF_KERNEL(32) missing_commit(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_wait<0>();
  store(a.output + thread_x(), words[thread_x()]);
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) missing_barrier_after_wait(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_wait_all();
  store(a.output + thread_x(), words[31 - thread_x()]);
}

IGF_KERNEL(32) write_under_way(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  words[thread_x()] = 0;
  ptx::cp_async_wait_all();
  store(a.output + thread_x(), words[thread_x()]);
}

IGF_KERNEL(32) copy_onto_copy(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async<4>(words + 2 * thread_x(), a.input + thread_x());
  ptx::cp_async<8>(words + 2 * thread_x(), a.input + 2 * thread_x());
  ptx::cp_async_wait_all();
  store(a.output + thread_x(), words[thread_x()]);
}

// The stage is copied to again while a neighbour may still read it: no barrier before the second copy.
IGF_KERNEL(32) stage_released_early(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_wait_all();
  block_barrier();  // every thread's copy has arrived
  store(a.output + thread_x(), words[31 - thread_x()]);
  ptx::cp_async<4>(words + thread_x(), a.input + 32 + thread_x());
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) source_changes(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  store(a.output + thread_x(), 1u);
  ptx::cp_async<4>(words + thread_x(), a.output + thread_x());
  store(a.output + thread_x(), 2u);
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) left_under_way(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  ptx::cp_async<4>(words + thread_x(), a.input + thread_x());
  ptx::cp_async_commit();
}

IGF_KERNEL(32) source_out_of_bounds(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 128);
  ptx::cp_async<16>(words + 4 * thread_x(), a.input + 4 * thread_x());
  ptx::cp_async_wait_all();
}

// The same addresses, of which nothing is read behind the end.
IGF_KERNEL(32) zero_fill_at_the_end(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 128);
  ptx::cp_async_zero_fill<16>(words + 4 * thread_x(), a.input + 4 * thread_x(), thread_x() < kWords / 4 ? 16 : 0);
  ptx::cp_async_wait_all();
  store(a.output + thread_x(), words[4 * thread_x()]);
}

IGF_KERNEL(32) destination_out_of_bounds(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 60);
  ptx::cp_async<8>(words + 2 * thread_x(), a.input + 2 * thread_x());
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) source_misaligned(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  if (thread_x() < 8) ptx::cp_async<16>(words + 4 * thread_x(), a.input + 4 * thread_x() + 1);
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) destination_misaligned(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  if (thread_x() < 8) ptx::cp_async<8>(words + 4 * thread_x() + 1, a.input + 4 * thread_x());
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) too_many_source_bytes(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  ptx::cp_async_zero_fill<4>(words + thread_x(), a.input + thread_x(), 5);
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) copy_to_global(PtxArguments a) {
  ptx::cp_async<4>(a.output + thread_x(), a.input + thread_x());
  ptx::cp_async_wait_all();
}

// The rest: 8 rows of 16 bytes in shared memory, and one matrix.
template <typename Row>
IGF_DEVICE void load_rows(const PtxArguments& a, Row row) {
  IGF_SHARED_ARRAY(uint32_t, words, kWords);
  words[thread_x()] = load(a.input + thread_x());
  words[32 + thread_x()] = 0;
  warp_barrier();  // the rows are in shared memory
  uint32_t registers[1];
  ptx::ldmatrix<1>(registers, row(words));
  store(a.output + thread_x(), registers[0]);
}

IGF_KERNEL(32) row_misaligned(PtxArguments a) {
  load_rows(a, [](const uint32_t* words) { return words + 4 * (thread_x() % 8) + 2; });
}

IGF_KERNEL(32) row_in_global(PtxArguments a) {
  load_rows(a, [&](const uint32_t*) { return a.input + 4 * (thread_x() % 8); });
}

IGF_KERNEL(32) row_out_of_bounds(PtxArguments a) {
  load_rows(a, [](const uint32_t* words) { return words + 4 * (thread_x() % 8 + 9); });
}

IGF_KERNEL(32) rows_not_yet_written(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  words[thread_x()] = load(a.input + thread_x());
  uint32_t registers[1];
  ptx::ldmatrix<1>(registers, words + 4 * (thread_x() % 8));
  store(a.output + thread_x(), registers[0]);
}

IGF_KERNEL(32) rows_under_way(PtxArguments a) {
  IGF_SHARED_ARRAY(uint32_t, words, 32);
  if (thread_x() < 8) ptx::cp_async<16>(words + 4 * thread_x(), a.input + 4 * thread_x());
  uint32_t registers[1];
  ptx::ldmatrix<1>(registers, words + 4 * (thread_x() % 8));
  store(a.output + thread_x(), registers[0]);
  ptx::cp_async_wait_all();
}

IGF_KERNEL(32) half_a_warp_multiplies(PtxArguments a) {
  const uint32_t left[4] = {0, 0, 0, 0}, right[2] = {0, 0};
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (thread_x() < 16) ptx::mma_m16n8k16<bfloat16>(sums, left, right);
  store(a.output + thread_x(), static_cast<uint32_t>(sums[0]));
}

IGF_KERNEL(32) two_types_multiply(PtxArguments a) {
  const uint32_t left[4] = {0, 0, 0, 0}, right[2] = {0, 0};
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (thread_x() < 16) {
    ptx::mma_m16n8k16<bfloat16>(sums, left, right);
  } else {
    ptx::mma_m16n8k16<half>(sums, left, right);
  }
  store(a.output + thread_x(), static_cast<uint32_t>(sums[0]));
}

IGF_KERNEL(32) loads_meet_a_product(PtxArguments a) {
  const uint32_t left[4] = {0, 0, 0, 0}, right[2] = {0, 0};
  float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (thread_x() < 16) {
    ptx::mma_m16n8k16<half>(sums, left, right);
  } else {
    warp_barrier();
  }
  store(a.output + thread_x(), static_cast<uint32_t>(sums[0]));
}

const PtxKernel kTable[] = {
    {"copy_right", &copy_right},
    {"missing_wait", &missing_wait},
    {"wait_for_too_few", &wait_for_too_few},
    {"missing_commit", &missing_commit},
    {"missing_barrier_after_wait", &missing_barrier_after_wait},
    {"write_under_way", &write_under_way},
    {"copy_onto_copy", &copy_onto_copy},
    {"stage_released_early", &stage_released_early},
    {"source_changes", &source_changes},
    {"left_under_way", &left_under_way},
    {"source_out_of_bounds", &source_out_of_bounds},
    {"zero_fill_at_the_end", &zero_fill_at_the_end},
    {"destination_out_of_bounds", &destination_out_of_bounds},
    {"source_misaligned", &source_misaligned},
    {"destination_misaligned", &destination_misaligned},
    {"too_many_source_bytes", &too_many_source_bytes},
    {"copy_to_global", &copy_to_global},
    {"row_misaligned", &row_misaligned},
    {"row_in_global", &row_in_global},
    {"row_out_of_bounds", &row_out_of_bounds},
    {"rows_not_yet_written", &rows_not_yet_written},
    {"rows_under_way", &rows_under_way},
    {"half_a_warp_multiplies", &half_a_warp_multiplies},
    {"two_types_multiply", &two_types_multiply},
    {"loads_meet_a_product", &loads_meet_a_product},
};

}  // namespace

PtxKernels ptx_fault_kernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::selftest
