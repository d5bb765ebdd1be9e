// The state of the launch that runs: its blocks, its threads, whose turn it is. For the emulator's own files.
//
// One launch runs at a time in a process, on the OS thread that called launch(); every CUDA thread is a fiber of it.
// So plain globals hold "the current thread", and nothing here is locked but the launch itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "simt/copies.h"
#include "simt/events.h"
#include "simt/fiber.h"
#include "simt/options.h"
#include "simt/order.h"
#include "simt/shared.h"
#include "simt/where.h"

namespace igf::simt {

constexpr int kWarpLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr int kNamedBarriers = 16;

struct Block;
class RegisterWatch;  // register_watch.h

enum class State : uint8_t { kReady, kWaiting, kEnded };

struct Thread {
  Context context;
  Block* block = nullptr;
  Who who{};
  int slot = 0;  // among all threads that are resident: resident block * threads of a block + thread
  State state = State::kEnded;
  Word waits_at = Word::kCount;  // kCount: it has not waited yet
  Site waits_site;
  uint32_t waits_lanes = 0;  // of a warp word: its mask
  uint64_t answer = 0;  // of the warp word it waited at
  uintptr_t waits_mbarrier = 0;  // 0: at none
  Clock clock;          // order.h
  RegisterWatch* watch = nullptr;  // from its first wgmma_fence on
};

// Lanes that meet at a warp word: whoever comes last answers all. Freed as soon as it is complete.
struct Meeting {
  uint32_t lanes = 0;  // 0: free
  uint32_t arrived = 0;
  Word word = Word::kCount;
  std::array<uint64_t, kWarpLanes> values;
  std::array<int, kWarpLanes> sources;  // of a shuffle; for others unused
  std::array<Site, kWarpLanes> sites;
};

struct MatrixWords;  // ptx_words.h
struct Warpgroups;   // wgmma_state.h
struct Mbarriers;    // mbarriers.h
struct BulkCopies;   // bulk.h
struct Registers;    // registers.h

struct Warp {
  uint32_t ended = 0;  // lanes that have left the kernel
  std::vector<Meeting> meetings;
  std::shared_ptr<MatrixWords> matrices;  // made by the first matrix word
};

// One of the barriers of a block: 0 is block_barrier's.
struct Barrier {
  int arrived = 0;
  int expected = 0;
  int yes = 0;  // predicates that hold
  Word word = Word::kCount;
  Site site;
  int first = 0;              // the thread that came first
  std::vector<int> waiting;   // threads to wake
  Seen seen;                  // by all that came, of a named barrier
};

struct Block {
  int64_t number = 0;
  int first_slot = 0;
  int ended = 0;
  uint32_t base = 1;          // accesses of the block's threads at an earlier clock precede everything they do now
  uint32_t latest = 1;        // the greatest clock of any of its threads
  std::vector<Warp> warps;
  std::array<Barrier, kNamedBarriers> barriers;
  SharedMemory shared;        // its own copy
  Copies copies;              // into it, under way
  std::shared_ptr<Warpgroups> warpgroups;  // made by the first wgmma word
  std::shared_ptr<Mbarriers> mbarriers;  // made by the first word of theirs
  std::shared_ptr<BulkCopies> bulk;
  std::shared_ptr<Registers> registers;
};

// What one access hook needs, in one cache line; of the thread whose turn it is.
struct Turn {
  uintptr_t stack_low = 0;
  size_t stack_bytes = 0;  // 0 while no thread runs: the hooks then do nothing; and with a watch
  uintptr_t shared_low = 0;
  size_t shared_bytes = 0;
  int64_t accesses_left = 0;  // until the turn ends
  Thread* thread = nullptr;
  uint32_t number = 0;        // of the thread: Mark::thread
  uint32_t first_number = 0;  // of its block's first thread
  uint32_t clock = 0;
  uint32_t base = 0;          // of its block
  RegisterWatch* watch = nullptr;  // hears accesses to the stack
};

struct Launch {
  LaunchFacts facts{};
  void (*body)(void*) = nullptr;
  void* parameters = nullptr;  // the kernel's arguments: any thread may read them
  size_t parameter_bytes = 0;
  Options options;
  int threads = 0;  // of a block
  int warps = 0;
  int rows = 0;  // of lanes, of a block: its warps, then those of asynchronous copies (bulk.h)
  int64_t blocks = 0;
  std::vector<int64_t> block_order;  // empty: by number, from the end for kReverse
  int64_t started = 0;               // blocks
  int64_t finished = 0;
  int resident = 0;
  std::vector<uint64_t> ready;  // bit per slot
  int ready_count = 0;
  int64_t words = 0;                 // said so far; loads, stores and raw accesses do not count
  int64_t waits_in_vain = 0;    // turns given up since a thread last ended or passed a meeting
  Context outside;
  std::mt19937_64 random;
  bool failed = false;
};

extern Turn turn;
extern Launch* current_launch;  // null between launches, launch.cpp
extern Observer* observer;
extern Mutator* mutator;

// The thread whose turn it is.
inline const Who& speaker() { return turn.thread->who; }

// After the clock of the thread whose turn it is has changed.
inline void refresh_clock() {
  turn.clock = turn.thread->clock.now;
  turn.base = turn.thread->block->base;
}

// By resident block * threads of a block + thread; the thread of that number in the block.
Thread& thread_of(int slot);
Thread& thread_of(const Block& block, int thread);
Block& resident_block(int number);
const Stacks& all_stacks();

// Scheduling, scheduler.cpp. All but start are called on a fiber.
void make_ready(Thread& thread);
// Runs all blocks of the current launch; returns when the last has ended or the launch has failed.
void run_blocks();
// Gives the turn away until somebody makes the thread ready again; `word` and `site` say at what it waits.
void wait_here(Word word, Site site);
// Gives the turn away but stays ready. `in_vain`: because it waits for others in a loop, so that loops without end are
// noticed; a large number counts more.
void yield_turn(int64_t in_vain);
// The turn has no accesses left: gives it away, as the schedule wants it, or because the thread may wait in a loop.
void end_long_turn(bool at_atomic);
// A new number of accesses until then.
void refill_accesses();
// The thread has reached the end of the kernel.
[[noreturn]] void end_thread();
// Leaves the fiber for good, and with it the launch, which then fails.
[[noreturn]] void abandon_launch();

// block.cpp: the thread has ended; a barrier that others wait at can then no longer be passed.
void check_barriers_at_end(Thread& thread);
// warp.cpp: the same for the words its warp waits at.
void check_meetings_at_end(Thread& thread);
// copy_words.cpp: the same for asynchronous copies that nobody waited for.
void check_copies_at_end(Thread& thread);
// wgmma_words.cpp: the same for the words of its warpgroup, and products that nobody waited for.
void check_warpgroup_at_end(Thread& thread);
// Somebody does `what` to bytes of a copy that was not waited for.
[[noreturn]] void fail_of_bytes_under_way(const Copy& copy, const std::string& what, Where where);

// A fault unless the emulated architecture has the word: `least` and later ones, or that one alone.
void check_architecture(int least, bool alone, Word word, Site site);

// Tells the observer, and asks the mutator: true where the word must do nothing.
bool say(Word word, Site site);
// The operand as the mutator wants it.
int operand_of(Word word, Site site, int value);

}  // namespace igf::simt
