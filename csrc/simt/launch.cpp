#include "simt/launch.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "simt/fault.h"
#include "simt/proxies.h"
#include "simt/shadow.h"
#include "simt/sync.h"

namespace igf::simt {

Launch* current_launch = nullptr;
Observer* observer = nullptr;
Mutator* mutator = nullptr;
bool launch_failed = false;

Options& options() {
  static Options instance;
  return instance;
}

void set_observer(Observer* now) { observer = now; }
void set_mutator(Mutator* now) { mutator = now; }

namespace {

// What every GPU in use takes, and what the kernel was compiled for.
void check_shape(const LaunchFacts& facts) {
  if (facts.thread_bound == 0) {
    throw std::runtime_error(std::string(facts.kernel) + ": not declared by IGF_KERNEL: on a GPU it is no kernel");
  }
  const int64_t threads = static_cast<int64_t>(facts.threads_x) * facts.threads_y;
  const bool grid_fits = facts.blocks_x >= 1 && facts.blocks_x <= 0x7fffffff && facts.blocks_y >= 1 &&
                         facts.blocks_y <= 0xffff;
  const bool block_fits = facts.threads_x >= 1 && facts.threads_y >= 1 && threads <= kMaxThreads;
  if (grid_fits && block_fits && facts.dynamic_shared_bytes >= 0) {
    if (threads <= facts.thread_bound) return;
    throw std::runtime_error(std::string(facts.kernel) + ": the launch has " + std::to_string(threads) +
                             " threads in a block, the kernel's IGF_KERNEL allows " +
                             std::to_string(facts.thread_bound) + ": a GPU refuses it");
  }
  throw std::runtime_error(std::string(facts.kernel) + ": the launch of " + std::to_string(facts.blocks_x) + " x " +
                           std::to_string(facts.blocks_y) + " blocks of " + std::to_string(facts.threads_x) + " x " +
                           std::to_string(facts.threads_y) + " threads with " +
                           std::to_string(facts.dynamic_shared_bytes) +
                           " bytes of dynamic shared memory is not possible on any GPU");
}

void fill_in(Launch& launch) {
  const LaunchFacts& facts = launch.facts;
  launch.options = options();
  launch.threads = facts.threads_x * facts.threads_y;
  launch.warps = (launch.threads + kWarpLanes - 1) / kWarpLanes;
  launch.blocks = facts.blocks_x * facts.blocks_y;
  launch.rows = rows_of_block(launch.warps);
  if (launch.blocks > (int64_t{1} << 32) / (launch.rows * kWarpLanes) - 1) {
    throw std::runtime_error(std::string(facts.kernel) + ": more blocks than the emulator can number");
  }
  launch.resident = static_cast<int>(std::min<int64_t>(std::max(launch.options.resident_blocks, 1), launch.blocks));
  launch.random.seed(launch.options.seed);
  if (launch.options.schedule >= Schedule::kRandom) {
    launch.block_order.resize(launch.blocks);
    std::iota(launch.block_order.begin(), launch.block_order.end(), int64_t{0});
    std::shuffle(launch.block_order.begin(), launch.block_order.end(), launch.random);
  }
}

// Ends the launch however it is left.
struct Running {
  explicit Running(Launch& launch) { current_launch = &launch; }
  ~Running() {
    forget_order();
    forget_proxies();
    end_shadow();
    current_launch = nullptr;
  }
};

}  // namespace

void launch(const LaunchFacts& facts, void (*body)(void*), void* parameters, size_t parameter_bytes) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  launch_failed = true;
  check_shape(facts);
  Launch launch;
  launch.facts = facts;
  launch.body = body;
  launch.parameters = parameters;
  launch.parameter_bytes = parameter_bytes;
  launch.outside = this_os_thread();
  fill_in(launch);
  std::string text;
  {
    const Running running(launch);
    begin_shared(launch.resident, facts.dynamic_shared_bytes, shared_bytes_limit(launch.options.architecture));
    begin_shadow();
    if (observer != nullptr) observer->launch_begins(launch.facts);
    run_blocks();
    launch.facts.static_shared_bytes = static_cast<int64_t>(shared_layout().static_bytes);
    if (launch.failed) text = text_of(recorded_fault(), launch.facts);
  }
  recorded_fault() = Fault();
  if (observer != nullptr) observer->launch_ends(launch.facts, launch.failed ? text.c_str() : nullptr);
  if (launch.failed) throw std::runtime_error(text);
  launch_failed = false;
}

void require_zero_counters(const char* kernel, const uint32_t* counters, int64_t count) {
  for (int64_t i = 0; counters != nullptr && i < count; ++i) {
    if (counters[i] == 0) continue;
    launch_failed = true;
    throw std::runtime_error(std::string(kernel) + ": the launch left counter " + std::to_string(i) +
                             " of DeviceContext::arrivals at " + std::to_string(counters[i]) +
                             ": the next launch that gets it would not find its last block. Every thread of every block "
                             "must say is_last_block, with the number of blocks, or none");
  }
}

void check_architecture(int least, bool alone, Word word, Site site) {
  const int here = current_launch->options.architecture;
  if (here == least || (here > least && !alone)) return;
  Fault fault;
  fault.rule = std::string(name_of(word)) + " does not exist on sm_" + std::to_string(here) + ": it " +
               (alone ? "is of sm_" + std::to_string(least) + "a alone" : "came with sm_" + std::to_string(least));
  fault.steps.push_back({name_of(speaker()), where_of(site)});
  fault.advice = "choose the kernel by DeviceContext::architecture";
  fail(std::move(fault));
}

namespace {

[[noreturn]] void fail_without_end(Word word, Site site) {
  Fault fault;
  fault.rule = "no end: more than " + std::to_string(current_launch->options.most_words) + " words were said";
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.advice = "look for a loop that nothing ends; or allow more (most_words)";
  fail(std::move(fault));
}

}  // namespace

bool say(Word word, Site site) {
  const Who& who = speaker();
  const int64_t most = current_launch->options.most_words;
  if (++current_launch->words > most && most > 0) fail_without_end(word, site);
  if (mutator != nullptr && mutator->dropped(who, word, site)) return true;
  if (observer != nullptr) observer->said(who, word, site);
  return false;
}

int operand_of(Word word, Site site, int value) {
  return mutator == nullptr ? value : mutator->operand(speaker(), word, site, value);
}

const char* name_of(Word word) {
  constexpr const char* kNames[] = {
      "a plain read", "a plain write", "load", "load_once", "load_shared_by_blocks", "store", "store_once",
      "atomic_add", "atomic_max", "atomic_min", "atomic_exchange", "atomic_or", "block_barrier", "block_barrier_or",
      "block_barrier_count", "warp_barrier", "shuffle", "shuffle_xor", "shuffle_up", "shuffle_down", "ballot",
      "any_lane", "all_lanes", "match_lanes", "block_fence", "device_fence", "let_others_run", "trap", "cp_async",
      "cp_async_commit", "cp_async_wait", "ldmatrix", "stmatrix", "mma", "named_barrier_sync", "named_barrier_arrive",
      "load_acquire", "store_release", "add_acquire_release", "add_release", "prefetch_l2",
      "wgmma_tile", "wgmma_fence", "wgmma", "wgmma_commit", "wgmma_wait", "mbarrier_init", "mbarrier_init_fence",
      "mbarrier_arrive", "mbarrier_arrive_expecting", "mbarrier_wait", "proxy_fence_shared", "proxy_fence_global",
      "release_registers", "claim_registers", "prefetch_tensor_map", "load_tile", "store_tile", "add_tile", "bulk_load",
      "bulk_add", "bulk_commit", "bulk_wait", "bulk_wait_read", "add_four"};
  static_assert(sizeof kNames / sizeof *kNames == static_cast<size_t>(Word::kCount));
  return word == Word::kCount ? "nothing that waits" : kNames[static_cast<int>(word)];
}

void fence_of(Word word, Site site) {
  if (say(word, site)) return;
  fence(*turn.thread, word == Word::kDeviceFence ? Scope::kDevice : Scope::kBlock);
  refresh_clock();
}

void let_others_run(Site site) {
  if (say(Word::kLetOthersRun, site)) return;
  turn.thread->waits_at = Word::kLetOthersRun;
  turn.thread->waits_site = site;
  yield_turn(1);
}

void trap(Site site) {
  Fault fault;
  fault.rule = "the kernel ended itself by trap()";
  fault.steps.push_back({name_of(speaker()), where_of(site)});
  fail(std::move(fault));
}

int thread_x() { return speaker().thread % current_launch->facts.threads_x; }
int thread_y() { return speaker().thread / current_launch->facts.threads_x; }
int thread_index() { return speaker().thread; }
int lane_index() { return speaker().lane; }
int64_t block_x() { return speaker().block_x; }
int64_t block_y() { return speaker().block_y; }
int64_t grid_x() { return current_launch->facts.blocks_x; }
int64_t grid_y() { return current_launch->facts.blocks_y; }

}  // namespace igf::simt
