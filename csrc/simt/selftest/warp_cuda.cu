// Rules of the warp: which lanes meet, what shuffles and votes give, that they do not order memory.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "simt/selftest/selftest.h"

namespace igf {
namespace {

using namespace device;
using simt::Bench;

constexpr uint32_t kLowHalf = 0x0000ffffu;

// How the lanes of a warp get what another has written.
enum class Meet { kBarrier, kShuffle, kNothing };

template <Meet kMeet>
IGF_KERNEL(32) swap_by_memory(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, values, 32);
  values[lane_index()] = load(in + lane_index());
  float zero = 0.0f;
  if constexpr (kMeet == Meet::kBarrier) warp_barrier();
  if constexpr (kMeet == Meet::kShuffle) zero = shuffle_xor(0.0f, 1);
  store(out + lane_index(), values[lane_index() ^ 1] + zero);
}

template <Meet kMeet>
void swap(const Bench& bench) {
  launch("swap_by_memory", &swap_by_memory<kMeet>, {1, 1, 32, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < 32; ++i) bench.expect(i, static_cast<float>(i ^ 1));
}

template <bool kBroken>
void warp_barrier_between_lanes(const Bench& bench) {
  swap<kBroken ? Meet::kNothing : Meet::kBarrier>(bench);
}
IGF_SELFTEST(warp_barrier_between_lanes);

template <bool kBroken>
void shuffles_do_not_order_memory(const Bench& bench) {
  swap<kBroken ? Meet::kShuffle : Meet::kBarrier>(bench);
}
IGF_SELFTEST(shuffles_do_not_order_memory);

// A warp_barrier orders only the lanes it names.
template <bool kBroken>
IGF_KERNEL(32) swap_in_halves(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, values, 32);
  values[lane_index()] = load(in + lane_index());
  warp_barrier(lane_index() < 16 ? kLowHalf : ~kLowHalf);
  store(out + lane_index(), values[lane_index() ^ (kBroken ? 16 : 8)]);
}

template <bool kBroken>
void warp_barrier_of_half_a_warp(const Bench& bench) {
  launch("swap_in_halves", &swap_in_halves<kBroken>, {1, 1, 32, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < 32; ++i) bench.expect(i, static_cast<float>(i ^ 8));
}
IGF_SELFTEST(warp_barrier_of_half_a_warp);

// Lanes 16 to 31 have left; the others must not name them.
template <bool kBroken>
IGF_KERNEL(32) shuffle_in_low_half(const float* in, float* out) {
  if (lane_index() >= 16) return;
  store(out + lane_index(), shuffle_xor(load(in + lane_index()), 1, kBroken ? kAllLanes : kLowHalf));
}

template <bool kBroken>
void shuffle_with_missing_lanes(const Bench& bench) {
  launch("shuffle_in_low_half", &shuffle_in_low_half<kBroken>, {1, 1, 32, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < 16; ++i) bench.expect(i, static_cast<float>(i ^ 1));
}
IGF_SELFTEST(shuffle_with_missing_lanes);

template <bool kBroken>
IGF_KERNEL(32) shuffle_from_lane(const float* in, float* out) {
  if (lane_index() >= 16) return;
  store(out + lane_index(), shuffle(load(in + lane_index()), kBroken ? 20 : 5, kLowHalf));
}

template <bool kBroken>
void shuffle_from_outside_the_mask(const Bench& bench) {
  launch("shuffle_from_lane", &shuffle_from_lane<kBroken>, {1, 1, 32, 1}, bench.context, bench.in, bench.out);
  for (int i = 0; i < 16; ++i) bench.expect(i, 5.0f);
}
IGF_SELFTEST(shuffle_from_outside_the_mask);

template <bool kBroken>
IGF_KERNEL(32) vote_for_low_half(float* out) {
  if (!kBroken && lane_index() >= 16) return;
  store(out + lane_index(), any_lane(lane_index() == 3, kLowHalf) ? 1.0f : 0.0f);
}

template <bool kBroken>
void lane_outside_its_own_mask(const Bench& bench) {
  launch("vote_for_low_half", &vote_for_low_half<kBroken>, {1, 1, 32, 1}, bench.context, bench.out);
  for (int i = 0; i < 16; ++i) bench.expect(i, 1.0f);
}
IGF_SELFTEST(lane_outside_its_own_mask);

template <bool kBroken>
IGF_KERNEL(32) say_different_words(float* out) {
  uint32_t all = 0;
  if (kBroken && lane_index() % 2 == 1) {
    all = static_cast<uint32_t>(shuffle(-1, 0));
  } else {
    all = ballot(true);
  }
  store(out + lane_index(), static_cast<float>(count_bits(all)));
}

template <bool kBroken>
void different_words_meet(const Bench& bench) {
  launch("say_different_words", &say_different_words<kBroken>, {1, 1, 32, 1}, bench.context, bench.out);
  bench.expect(31, 32.0f);
}
IGF_SELFTEST(different_words_meet);

template <bool kBroken>
IGF_KERNEL(32) name_different_lanes(float* out) {
  const uint32_t lanes = kBroken && lane_index() < 8 ? kLowHalf : kAllLanes;
  store(out + lane_index(), static_cast<float>(count_bits(ballot(true, lanes))));
}

template <bool kBroken>
void different_masks_meet(const Bench& bench) {
  launch("name_different_lanes", &name_different_lanes<kBroken>, {1, 1, 32, 1}, bench.context, bench.out);
  bench.expect(0, 32.0f);
}
IGF_SELFTEST(different_masks_meet);

// A block of 48 threads: its second warp has 16 lanes.
template <bool kBroken>
IGF_KERNEL(48) vote_in_short_warp(float* out) {
  const uint32_t lanes = !kBroken && thread_x() >= kWarp ? kLowHalf : kAllLanes;
  store(out + thread_x(), static_cast<float>(count_bits(ballot(true, lanes))));
}

template <bool kBroken>
void lanes_that_do_not_exist(const Bench& bench) {
  launch("vote_in_short_warp", &vote_in_short_warp<kBroken>, {1, 1, 48, 1}, bench.context, bench.out);
  bench.expect(0, 32.0f);
  bench.expect(47, 16.0f);
}
IGF_SELFTEST(lanes_that_do_not_exist);

// One lane never comes: it waits at the block's barrier.
template <bool kBroken>
IGF_KERNEL(32) one_lane_waits_elsewhere(float* out) {
  if (!kBroken || lane_index() != 9) warp_barrier();
  block_barrier();
  store(out + lane_index(), 1.0f);
}

template <bool kBroken>
void warp_word_without_a_lane(const Bench& bench) {
  launch("one_lane_waits_elsewhere", &one_lane_waits_elsewhere<kBroken>, {1, 1, 32, 1}, bench.context, bench.out);
  bench.expect(9, 1.0f);
}
IGF_SELFTEST(warp_word_without_a_lane);

template <bool kBroken>
IGF_KERNEL(32) shuffle_far(float* out, int delta) {
  store(out + lane_index(), shuffle_down(static_cast<float>(lane_index()), delta));
}

template <bool kBroken>
void shuffle_by_too_many_lanes(const Bench& bench) {
  launch("shuffle_far", &shuffle_far<kBroken>, {1, 1, 32, 1}, bench.context, bench.out, kBroken ? 32 : 31);
  bench.expect(0, 31.0f);
  bench.expect(1, 1.0f);
}
IGF_SELFTEST(shuffle_by_too_many_lanes);

// A half of the warp meets twice before all meet: lanes that wait with another mask are no mistake.
IGF_KERNEL(32) meet_in_halves_then_all(float* out) {
  int met = 0;
  if (lane_index() < 16) {
    warp_barrier(kLowHalf);
    met += count_bits(ballot(true, kLowHalf));
  }
  met += count_bits(ballot(lane_index() % 2 == 0));
  store(out + lane_index(), static_cast<float>(met));
}

void masks_in_sequence(const Bench& bench) {
  launch("meet_in_halves_then_all", &meet_in_halves_then_all, {1, 1, 32, 1}, bench.context, bench.out);
  for (int i = 0; i < 32; ++i) bench.expect(i, i < 16 ? 32.0f : 16.0f);
}
IGF_SOUND(masks_in_sequence);

// Each word's answer in every lane, for a value and a predicate that differ from lane to lane.
IGF_KERNEL(32) say_all_words(float* out, int* wrong) {
  const int lane = lane_index();
  int bad = 0;
  bad += shuffle(3 * lane, 7) != 21;
  bad += shuffle(3 * lane, (lane + 5) % 32) != 3 * ((lane + 5) % 32);
  bad += shuffle_xor(static_cast<int64_t>(lane) << 40, 16) != static_cast<int64_t>(lane ^ 16) << 40;
  bad += shuffle_up(2.5 * lane, 3) != 2.5 * (lane < 3 ? lane : lane - 3);
  bad += shuffle_down(0.5f * static_cast<float>(lane), 4) != 0.5f * static_cast<float>(lane > 27 ? lane : lane + 4);
  bad += shuffle(uint64_t{1} << 63 | static_cast<uint64_t>(lane), 31) != (uint64_t{1} << 63 | 31u);
  bad += ballot(lane % 4 == 1) != 0x22222222u;
  bad += any_lane(false) || !any_lane(lane == 31) || all_lanes(lane != 31) || !all_lanes(true);
  bad += match_lanes(static_cast<uint32_t>(lane % 8)) != 0x01010101u << (lane % 8);
  bad += count_bits(0xf0f0u) != 8 || find_first_bit(0x50u) != 5 || find_first_bit(0u) != 0;
  bad += leading_zeros(1u) != 31 || leading_zeros(0u) != 32;
  store(out + lane, static_cast<float>(bad));
  if (lane == 0) store(wrong, 0);
}

void answers_of_warp_words(const Bench& bench) {
  launch("say_all_words", &say_all_words, {1, 1, 32, 1}, bench.context, bench.out,
         reinterpret_cast<int*>(bench.counters));
  for (int i = 0; i < 32; ++i) bench.expect(i, 0.0f);
}
IGF_SOUND(answers_of_warp_words);

}  // namespace
}  // namespace igf
