// Barriers of a block: the whole block's and the named ones.
#include "simt/fault.h"
#include "simt/sync.h"

namespace igf::simt {
namespace {

bool same_place(const Site& a, const Site& b) { return a.line == b.line && a.file == b.file; }

// A thread came to another word, or another line, than those that wait.
[[noreturn]] void fail_of_divergence(const Barrier& barrier, Word word, Site site) {
  Fault fault;
  fault.rule = "divergent barrier: threads of one block wait at different barriers";
  fault.steps.push_back({name_of(speaker()) + " comes to " + name_of(word), where_of(site)});
  fault.steps.push_back({"thread " + std::to_string(barrier.first) + " came to " + name_of(barrier.word),
                         where_of(barrier.site)});
  fault.advice = "every thread of the block must come to the same barrier";
  fail(std::move(fault));
}

[[noreturn]] void fail_of_end(const Barrier& barrier, const std::string& who) {
  Fault fault;
  fault.rule = "early return: a barrier waits for threads that have left the kernel";
  fault.steps.push_back({who + " returned; thread " + std::to_string(barrier.first) + " came to " +
                             name_of(barrier.word),
                         where_of(barrier.site)});
  fault.advice = "no thread of the block may return before its last barrier";
  fail(std::move(fault));
}

std::string ended_threads(const Block& block) {
  std::vector<int> ended;
  for (int i = 0; i < current_launch->threads; ++i) {
    if (thread_of(block, i).state == State::kEnded) ended.push_back(i);
  }
  return "threads " + ranges(ended) + " of block " + std::to_string(block.number);
}

void wake(const Block& block, Barrier& barrier) {
  for (const int waiting : barrier.waiting) make_ready(thread_of(block, waiting));
  barrier.waiting.clear();
  current_launch->waits_in_vain = 0;
}

// The number of predicates that hold, once every thread of the block has come.
int meet(Word word, Site site, bool predicate) {
  Thread& thread = *turn.thread;
  Block& block = *thread.block;
  Barrier& barrier = block.barriers[0];
  if (barrier.arrived == 0) {
    barrier.word = word;
    barrier.site = site;
    barrier.first = thread.who.thread;
    barrier.yes = 0;
  } else if (barrier.word != word || !same_place(barrier.site, site)) {
    fail_of_divergence(barrier, word, site);
  }
  if (block.ended > 0) fail_of_end(barrier, ended_threads(block));
  barrier.yes += predicate ? 1 : 0;
  if (++barrier.arrived < current_launch->threads) {
    barrier.waiting.push_back(thread.who.thread);
    wait_here(word, site);
    return static_cast<int>(thread.answer);
  }
  barrier.arrived = 0;
  for (const int waiting : barrier.waiting) thread_of(block, waiting).answer = static_cast<uint64_t>(barrier.yes);
  wake(block, barrier);
  order_block(block);
  refresh_clock();
  return barrier.yes;
}

[[noreturn]] void fail_of_named(int barrier, const std::string& what, Site site) {
  Fault fault;
  fault.rule = "named barrier " + std::to_string(barrier) + ": " + what;
  fault.steps.push_back({name_of(speaker()), where_of(site)});
  fail(std::move(fault));
}

// Counts the thread in; true when it was the last that was expected.
bool arrive_at(int number, int threads, Word word, Site site) {
  Thread& thread = *turn.thread;
  if (number < 1 || number >= kNamedBarriers) fail_of_named(number, "the numbers are 1 to 15", site);
  if (threads <= 0 || threads % kWarpLanes != 0 || threads > current_launch->threads) {
    fail_of_named(number, std::to_string(threads) + " threads are not a number of whole warps of the block", site);
  }
  Barrier& barrier = thread.block->barriers[number];
  if (barrier.arrived == 0) {
    barrier.expected = threads;
    barrier.word = word;
    barrier.site = site;
    barrier.first = thread.who.thread;
    barrier.seen = nullptr;
  } else if (barrier.expected != threads) {
    fail_of_named(number, std::to_string(threads) + " threads are asked for here, " +
                              std::to_string(barrier.expected) + " by thread " + std::to_string(barrier.first), site);
  }
  contribute(thread, barrier.seen);
  refresh_clock();
  return ++barrier.arrived == barrier.expected;
}

void complete(Barrier& barrier) {
  const Block& block = *turn.thread->block;
  barrier.arrived = 0;
  for (const int waiting : barrier.waiting) receive(thread_of(block, waiting), barrier.seen);
  wake(block, barrier);
}

}  // namespace

void block_barrier(Site site) {
  if (say(Word::kBlockBarrier, site)) return;
  meet(Word::kBlockBarrier, site, false);
}

bool block_barrier_or(bool predicate, Site site) {
  if (say(Word::kBlockBarrierOr, site)) return predicate;
  return meet(Word::kBlockBarrierOr, site, predicate) > 0;
}

int block_barrier_count(bool predicate, Site site) {
  if (say(Word::kBlockBarrierCount, site)) return predicate ? 1 : 0;
  return meet(Word::kBlockBarrierCount, site, predicate);
}

void named_barrier_sync(int number, int threads, Site site) {
  if (say(Word::kNamedBarrierSync, site)) return;
  const bool last = arrive_at(number, threads, Word::kNamedBarrierSync, site);
  Thread& thread = *turn.thread;
  Barrier& barrier = thread.block->barriers[number];
  if (!last) {
    barrier.waiting.push_back(thread.who.thread);
    wait_here(Word::kNamedBarrierSync, site);
    return;
  }
  receive(thread, barrier.seen);
  refresh_clock();
  complete(barrier);
}

void named_barrier_arrive(int number, int threads, Site site) {
  if (say(Word::kNamedBarrierArrive, site)) return;
  if (arrive_at(number, threads, Word::kNamedBarrierArrive, site)) {
    complete(turn.thread->block->barriers[number]);
  }
}

void check_barriers_at_end(Thread& thread) {
  const Barrier& barrier = thread.block->barriers[0];
  if (barrier.arrived > 0) fail_of_end(barrier, name_of(thread.who));
}

}  // namespace igf::simt
