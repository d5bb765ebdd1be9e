// Micro-kernels: what the lanes of a warp, or the threads of a block, tell each other, and bits of a word.
#include "device/memory.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

// Lane l's value is input[l].
IGF_DEVICE uint32_t own_word(const Arguments& a) { return load(a.input + thread_x()); }

// output[l]: the value of lane input[32 + l].
IGF_KERNEL(32) shuffle_from(Arguments a) {
  const int source = static_cast<int>(load(a.input + 32 + thread_x()));
  store(a.output + thread_x(), shuffle(own_word(a), source));
}

// output[32 i + l]: the value of lane l ^ 2^i.
IGF_KERNEL(32) shuffle_with_mask(Arguments a) {
  const uint32_t value = own_word(a);
#pragma unroll
  for (int i = 0; i < 5; ++i) store(a.output + 32 * i + thread_x(), shuffle_xor(value, 1 << i));
}

// output[32 i + l]: the value of lane l - delta, with delta = 1, 3, 16.
IGF_KERNEL(32) shuffle_from_below(Arguments a) {
  const uint32_t value = own_word(a);
  store(a.output + thread_x(), shuffle_up(value, 1));
  store(a.output + 32 + thread_x(), shuffle_up(value, 3));
  store(a.output + 64 + thread_x(), shuffle_up(value, 16));
}

// The same with lane l + delta.
IGF_KERNEL(32) shuffle_from_above(Arguments a) {
  const uint32_t value = own_word(a);
  store(a.output + thread_x(), shuffle_down(value, 1));
  store(a.output + 32 + thread_x(), shuffle_down(value, 3));
  store(a.output + 64 + thread_x(), shuffle_down(value, 16));
}

// 64-bit values input[2 l] + 2^32 input[2 l + 1], from lane l ^ 7.
IGF_KERNEL(32) shuffle_wide(Arguments a) {
  const uint64_t value = static_cast<uint64_t>(load(a.input + 2 * thread_x() + 1)) << 32 | load(a.input + 2 * thread_x());
  const uint64_t other = shuffle_xor(value, 7);
  store(a.output + 2 * thread_x(), static_cast<uint32_t>(other));
  store(a.output + 2 * thread_x() + 1, static_cast<uint32_t>(other >> 32));
}

// Each half of the warp by itself: output[l]: the value of lane l ^ 5 of the same half.
IGF_KERNEL(32) shuffle_in_halves(Arguments a) {
  const uint32_t lanes = thread_x() < 16 ? 0x0000ffffu : 0xffff0000u;
  const uint32_t value = own_word(a);
  uint32_t other;
  if (thread_x() < 16) {
    other = shuffle_xor(value, 5, lanes);
  } else {
    other = shuffle_xor(value, 5, lanes);
  }
  store(a.output + thread_x(), other);
}

// For bit i of the values, i in [0, 3): output[96 i ...]: ballot, any, all, in every lane.
IGF_KERNEL(32) votes(Arguments a) {
  const uint32_t value = own_word(a);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const bool yes = (value >> i & 1) != 0;
    store(a.output + 96 * i + thread_x(), ballot(yes));
    store(a.output + 96 * i + 32 + thread_x(), any_lane(yes) ? 1u : 0u);
    store(a.output + 96 * i + 64 + thread_x(), all_lanes(yes) ? 1u : 0u);
  }
}

// output[l]: the lanes that hold the same value.
IGF_KERNEL(32) match(Arguments a) { store(a.output + thread_x(), match_lanes(own_word(a))); }

// output[l], [32 + l], [64 + l]: bits set, place of the lowest set bit plus one, zeros above the highest.
IGF_KERNEL(32) bits(Arguments a) {
  const uint32_t value = own_word(a);
  store(a.output + thread_x(), static_cast<uint32_t>(count_bits(value)));
  store(a.output + 32 + thread_x(), static_cast<uint32_t>(find_first_bit(value)));
  store(a.output + 64 + thread_x(), static_cast<uint32_t>(leading_zeros(value)));
}

// For bit i of the values of 64 threads, i in [0, 3): output[128 i ...]: whether any holds, how many do.
IGF_KERNEL(64) block_votes(Arguments a) {
  const uint32_t value = own_word(a);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const bool yes = (value >> i & 1) != 0;
    store(a.output + 128 * i + thread_x(), block_barrier_or(yes) ? 1u : 0u);
    store(a.output + 128 * i + 64 + thread_x(), static_cast<uint32_t>(block_barrier_count(yes)));
  }
}

const MicroKernel kTable[] = {
    {"shuffle", 64, 32, 1, 32, &shuffle_from},
    {"shuffle_xor", 32, 160, 1, 32, &shuffle_with_mask},
    {"shuffle_up", 32, 96, 1, 32, &shuffle_from_below},
    {"shuffle_down", 32, 96, 1, 32, &shuffle_from_above},
    {"shuffle_64_bits", 64, 64, 1, 32, &shuffle_wide},
    {"shuffle_in_halves", 32, 32, 1, 32, &shuffle_in_halves},
    {"votes", 32, 288, 1, 32, &votes},
    {"match", 32, 32, 1, 32, &match},
    {"bits", 32, 96, 1, 32, &bits},
    {"block_votes", 64, 384, 1, 64, &block_votes},
};

}  // namespace

Table lane_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
