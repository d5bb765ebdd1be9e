// The words that make threads wait, exchange values and order memory, as device/words.cuh says what they mean. Called
// by the emulator's half of the device headers, on a fiber.
#pragma once

#include <cstdint>

#include "simt/events.h"

namespace igf::simt {

void block_barrier(Site site);
bool block_barrier_or(bool predicate, Site site);
int block_barrier_count(bool predicate, Site site);

// Barriers 1 to 15 of the block.
void named_barrier_sync(int number, int threads, Site site);
void named_barrier_arrive(int number, int threads, Site site);

void warp_barrier(uint32_t lanes, Site site);

// The bits of the lane that the word chooses; operand: its mask, source lane or delta.
uint64_t shuffle(Word word, uint64_t bits, int operand, uint32_t lanes, Site site);

// The lanes whose value is like the caller's (kMatchLanes), or not zero (the others).
uint32_t vote(Word word, uint64_t value, uint32_t lanes, Site site);

// A word that all 32 lanes say together, for the warp's matrix words: returns in every lane once all have come. `mine`
// is handed to all: [32], of the lanes in order. What it points to must live until the lane's next warp word.
struct LaneValues {
  uint64_t of[32];
};
void warp_exchange(Word word, uint64_t mine, LaneValues& all, Site site);

void fence_of(Word word, Site site);
void let_others_run(Site site);
[[noreturn]] void trap(Site site);

// The thread's numbers, by value: a kernel may not read the emulator's own memory.
int thread_x();
int thread_y();
int thread_index();
int lane_index();
int64_t block_x();
int64_t block_y();
int64_t grid_x();
int64_t grid_y();

}  // namespace igf::simt
