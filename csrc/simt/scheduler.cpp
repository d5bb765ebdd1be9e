// Who runs next. Deterministic: equal options give equal runs.
#include <algorithm>
#include <bit>
#include <deque>

#include "simt/bulk.h"
#include "simt/fault.h"
#include "simt/mbarriers.h"
#include "simt/registers.h"

namespace igf::simt {

Turn turn;

namespace {

// Turns given up in vain before a launch counts as one that waits for ever.
constexpr int64_t kPatience = int64_t{1} << 20;
// After so many a load of a tensor arrives, where loads are late.
constexpr int64_t kLoadPatience = 256;
// A turn that no schedule ends is ended after so many accesses: the thread may wait in a loop without saying so.
constexpr int64_t kLongTurn = int64_t{1} << 20;

std::deque<Thread> threads;  // by slot; a deque, as threads stand still
std::deque<Block> blocks;
Stacks stacks;

// The first ready slot at or after `from`, around the end; there is one.
int next_ready(int from) {
  const std::vector<uint64_t>& ready = current_launch->ready;
  const int words = static_cast<int>(ready.size());
  int word = from / 64 % words;
  uint64_t bits = from / 64 < words ? ready[word] & (~uint64_t{0} << (from % 64)) : ready[word];
  while (bits == 0) {
    word = (word + 1) % words;
    bits = ready[word];
  }
  return word * 64 + std::countr_zero(bits);
}

// The last ready slot at or before `from`, around the start.
int previous_ready(int from) {
  const std::vector<uint64_t>& ready = current_launch->ready;
  const int words = static_cast<int>(ready.size());
  int word = from < 0 ? words - 1 : from / 64;
  uint64_t bits = from < 0 ? ready[word] : ready[word] & (~uint64_t{0} >> (63 - from % 64));
  while (bits == 0) {
    word = (word + words - 1) % words;
    bits = ready[word];
  }
  return word * 64 + 63 - std::countl_zero(bits);
}

int random_ready() {
  int skip = static_cast<int>(current_launch->random() % static_cast<uint64_t>(current_launch->ready_count));
  for (size_t word = 0;; ++word) {
    uint64_t bits = current_launch->ready[word];
    const int here = std::popcount(bits);
    if (skip >= here) {
      skip -= here;
      continue;
    }
    while (skip-- > 0) bits &= bits - 1;
    return static_cast<int>(word) * 64 + std::countr_zero(bits);
  }
}

int pick(int after) {
  switch (current_launch->options.schedule) {
    case Schedule::kForward: return next_ready(after + 1);
    case Schedule::kReverse: return previous_ready(after - 1);
    default: return random_ready();
  }
}

void not_ready(Thread& thread, State state) {
  current_launch->ready[thread.slot / 64] &= ~(uint64_t{1} << (thread.slot % 64));
  --current_launch->ready_count;
  thread.state = state;
}

void take_turn(Thread& thread) {
  turn.thread = &thread;
  turn.stack_low = reinterpret_cast<uintptr_t>(thread.context.stack_low);
  turn.watch = thread.watch;
  turn.stack_bytes = thread.watch == nullptr ? thread.context.stack_bytes : 0;
  turn.shared_low = reinterpret_cast<uintptr_t>(thread.block->shared.base);
  turn.shared_bytes = kSharedRoom;
  turn.first_number = static_cast<uint32_t>(thread.who.block * current_launch->rows * kWarpLanes + 1);
  turn.number = turn.first_number + static_cast<uint32_t>(thread.who.thread);
  refresh_clock();
  refill_accesses();
}

void leave_turn() {
  turn.thread = nullptr;
  turn.stack_bytes = turn.shared_bytes = 0;
  turn.watch = nullptr;
}

// "block_barrier at x.cu:3: block 0 threads 0-31", one step for each word and place that threads wait at.
void add_waiting(Fault& fault) {
  struct Group {
    Word word;
    Site site;
    uint32_t lanes;
    int64_t block;
    std::vector<int> threads;
  };
  std::vector<Group> groups;
  for (const Thread& thread : threads) {
    if (thread.state != State::kWaiting) continue;
    const auto same = [&thread](const Group& group) {
      return group.word == thread.waits_at && group.site.line == thread.waits_site.line &&
             group.site.file == thread.waits_site.file && group.lanes == thread.waits_lanes &&
             group.block == thread.who.block;
    };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) {
      groups.push_back({thread.waits_at, thread.waits_site, thread.waits_lanes, thread.who.block, {}});
      group = groups.end() - 1;
    }
    group->threads.push_back(thread.who.thread);
  }
  for (const Group& group : groups) {
    if (group.word == Word::kMbarrierWait) continue;
    const std::string lanes = group.lanes == 0 ? "" : " of " + lanes_of(group.lanes);
    fault.steps.push_back({"threads " + ranges(group.threads) + " of block " + std::to_string(group.block) +
                               " wait for " + name_of(group.word) + lanes,
                           where_of(group.site)});
  }
}

// The mbarriers that threads wait at, and what their phases lack; what registers are claimed.
void add_mbarriers(Fault& fault) {
  for (int b = 0; b < current_launch->resident; ++b) {
    const Block& block = blocks[b];
    const std::string pool = describe_pool(block);
    if (!pool.empty()) fault.steps.push_back({pool, 0});
    if (block.mbarriers == nullptr) continue;
    for (const Mbarrier& barrier : block.mbarriers->all) {
      if (barrier.waiting.empty()) continue;
      std::vector<int> waiting = barrier.waiting;
      std::sort(waiting.begin(), waiting.end());
      fault.steps.push_back({"threads " + ranges(waiting) + " of block " + std::to_string(block.number) +
                                 " wait for " + describe(block, barrier),
                             where_of(thread_of(block, barrier.waiting.front()).waits_site)});
    }
  }
}

Fault deadlock() {
  Fault fault;
  fault.rule = "deadlock: every thread that has not ended waits";
  add_waiting(fault);
  add_mbarriers(fault);
  fault.advice = "all lanes of a mask must say the same word with the same mask, all threads of a block its barriers";
  if (current_launch->blocks > current_launch->resident) {
    fault.advice += "; " + std::to_string(current_launch->resident) + " of " + std::to_string(current_launch->blocks) +
                   " blocks are resident at a time: blocks may not wait for one that has not begun";
  }
  return fault;
}

// Gives the turn to the next ready thread; returns when the caller's comes again.
void give_turn(Thread& from) {
  while (current_launch->ready_count == 0) {
    if (!complete_a_load()) fail(deadlock());
  }
  Thread& next = threads[pick(from.slot)];
  take_turn(next);
  if (&next != &from) switch_context(from.context, next.context);
}

// The first and only function of a fiber.
void thread_entry() {
  fiber_started();
  current_launch->body(current_launch->parameters);
  end_thread();
}

int64_t number_of_block(int64_t place) {
  const Launch& launch = *current_launch;
  if (!launch.block_order.empty()) return launch.block_order[place];
  return launch.options.schedule == Schedule::kReverse ? launch.blocks - 1 - place : place;
}

void begin_block(Block& block, int64_t number) {
  Launch& launch = *current_launch;
  block.number = number;
  block.ended = 0;
  block.base = block.latest = 1;
  for (Warp& warp : block.warps) warp = Warp();
  for (Barrier& barrier : block.barriers) barrier = Barrier();
  block.warpgroups = nullptr;
  refill(block.shared);
  block.copies.begin(reinterpret_cast<uintptr_t>(block.shared.base), launch.threads);
  block.mbarriers = nullptr;
  block.bulk = nullptr;
  block.registers = nullptr;
  for (int i = 0; i < launch.threads; ++i) {
    Thread& thread = thread_of(block, i);
    thread.clock = Clock();
    thread.watch = nullptr;
    thread.who = {number % launch.facts.blocks_x, number / launch.facts.blocks_x, number, i, i / kWarpLanes,
                  i % kWarpLanes};
    thread.waits_at = Word::kCount;
    thread.waits_lanes = 0;
    const size_t stagger = static_cast<size_t>(thread.slot) % 64;
    prepare(thread.context, stacks.low(thread.slot), Stacks::kBytes, stagger, &thread_entry);
    make_ready(thread);
  }
  ++launch.started;
}

void provide_threads() {
  Launch& launch = *current_launch;
  const size_t needed = static_cast<size_t>(launch.resident) * launch.threads;
  stacks.provide(needed);
  threads.resize(std::max(threads.size(), needed));
  blocks.resize(std::max<size_t>(blocks.size(), launch.resident));
  launch.ready.assign((needed + 63) / 64, 0);
  for (Thread& thread : threads) thread.state = State::kEnded;
  for (int b = 0; b < launch.resident; ++b) {
    Block& block = blocks[b];
    block.first_slot = b * launch.threads;
    block.warps.resize(launch.warps);
    block.shared = shared_memory(b);
    for (int i = 0; i < launch.threads; ++i) {
      Thread& thread = threads[block.first_slot + i];
      thread.slot = block.first_slot + i;
      thread.block = &block;
    }
  }
}

}  // namespace

Thread& thread_of(int slot) { return threads[slot]; }
Thread& thread_of(const Block& block, int thread) { return threads[block.first_slot + thread]; }
Block& resident_block(int number) { return blocks[number]; }

const Stacks& all_stacks() { return stacks; }

void make_ready(Thread& thread) {
  current_launch->ready[thread.slot / 64] |= uint64_t{1} << (thread.slot % 64);
  ++current_launch->ready_count;
  thread.state = State::kReady;
}

void refill_accesses() {
  const Options& options = current_launch->options;
  turn.accesses_left = kLongTurn;
  if (options.schedule != Schedule::kPreempting) return;
  const uint64_t most = 2 * static_cast<uint64_t>(options.accesses_between_turns);
  turn.accesses_left = 1 + static_cast<int64_t>(current_launch->random() % most);
}

void wait_here(Word word, Site site) {
  Thread& thread = *turn.thread;
  thread.waits_at = word;
  thread.waits_site = site;
  not_ready(thread, State::kWaiting);
  give_turn(thread);
  thread.waits_lanes = 0;
  thread.waits_mbarrier = 0;
}

void yield_turn(int64_t in_vain) {
  Thread& thread = *turn.thread;
  current_launch->waits_in_vain += in_vain;
  // What they wait for may be what a copy brings.
  if (in_vain > 0 && current_launch->waits_in_vain % kLoadPatience == 0) complete_a_load();
  if (current_launch->waits_in_vain > kPatience) {
    Fault fault;
    fault.rule = "no end in sight: threads wait in a loop for what does not come";
    fault.steps.push_back({name_of(thread.who) + " is one of them, it last said " + name_of(thread.waits_at),
                           where_of(thread.waits_site)});
    add_waiting(fault);
    fail(std::move(fault));
  }
  give_turn(thread);
}

void end_long_turn(bool at_atomic) {
  // Where turns end at random, that one has ended says little of waiting in vain.
  const bool random = current_launch->options.schedule == Schedule::kPreempting;
  yield_turn(random ? (at_atomic ? 1 : 0) : (at_atomic ? kPatience >> 12 : kPatience >> 8));
}

void end_thread() {
  Thread& thread = *turn.thread;
  Block& block = *thread.block;
  not_ready(thread, State::kEnded);
  ++block.ended;
  block.warps[thread.who.warp].ended |= 1u << thread.who.lane;
  current_launch->waits_in_vain = 0;
  check_barriers_at_end(thread);
  check_meetings_at_end(thread);
  check_copies_at_end(thread);
  check_bulk_at_end(thread);
  check_warpgroup_at_end(thread);
  if (block.ended < current_launch->threads) give_turn(thread);
  finish_bulk(block);
  check_registers_at_end(block);
  // The block has ended: its threads' stacks are free for the next one, which run_blocks begins.
  leave_turn();
  switch_context(thread.context, current_launch->outside);
  __builtin_unreachable();
}

void abandon_launch() {
  current_launch->failed = true;
  Thread& thread = *turn.thread;
  leave_turn();
  switch_context(thread.context, current_launch->outside);
  __builtin_unreachable();
}

void run_blocks() {
  Launch& launch = *current_launch;
  provide_threads();
  for (int b = 0; b < launch.resident; ++b) begin_block(blocks[b], number_of_block(launch.started));
  int after = launch.options.schedule == Schedule::kReverse ? 0 : -1;
  while (launch.finished < launch.blocks) {
    while (launch.ready_count == 0 && complete_a_load()) continue;
    if (launch.ready_count == 0) {
      recorded_fault() = deadlock();
      launch.failed = true;
      return;
    }
    Thread& next = threads[pick(after)];
    take_turn(next);
    switch_context(launch.outside, next.context);
    if (launch.failed) return;
    ++launch.finished;
    for (int b = 0; b < launch.resident; ++b) {
      if (blocks[b].ended < launch.threads) continue;
      after = blocks[b].first_slot;
      if (launch.started < launch.blocks) begin_block(blocks[b], number_of_block(launch.started));
    }
  }
}

}  // namespace igf::simt
