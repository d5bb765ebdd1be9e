#include "simt/proxies.h"

#include <unordered_map>

#include "simt/async_words.h"
#include "simt/fault.h"
#include "simt/mbarriers.h"
#include "simt/race.h"

namespace igf::simt {
namespace {

// A proxy fence: `seen` had happened before.
struct Fence {
  uint32_t clock;  // of its thread
  Seen seen;
};

using Fences = std::unordered_map<uint32_t, std::vector<Fence>>;  // by Mark::thread

Fences fences[2];     // by Space
Thread async_thread;  // stands for asynchronous work while it has its turn

bool happened(uint32_t thread, uint32_t clock) {
  const uint32_t lane = thread - turn.first_number;
  const bool own_block = lane < static_cast<uint32_t>(current_launch->rows) * kWarpLanes;
  return thread == turn.number || (own_block && clock < turn.base) ||
         seen_by_view(turn.thread->clock.seen, thread, clock);
}

// Whether a fence of the thread has happened that followed the write. Its newest one covers most.
bool fenced_by(uint32_t thread, const std::vector<Fence>& said, const Mark& write) {
  for (size_t i = said.size(); i-- > 0;) {
    if (happened(thread, said[i].clock + 1)) return seen_by_view(said[i].seen, write.thread, write.clock);
  }
  return false;
}

bool fenced(Space space, const Mark& write) {
  const Fences& all = fences[static_cast<size_t>(space)];
  const auto own = all.find(write.thread);
  if (own != all.end() && fenced_by(write.thread, own->second, write)) return true;
  for (const auto& [thread, said] : all) {
    if (fenced_by(thread, said, write)) return true;
  }
  return false;
}

bool fenced_in_shared(const Mark& write) { return fenced(Space::kShared, write); }
bool fenced_in_global(const Mark& write) { return fenced(Space::kGlobal, write); }

// False where the mutator dropped it.
bool say_fence(Word word, Space space, Site site) {
  check_architecture(90, false, word, site);
  if (say(word, site)) return false;
  Thread& thread = *turn.thread;
  std::vector<Fence>& said = fences[static_cast<size_t>(space)][turn.number];
  // All threads of the block have seen fences below its base: the newest of them is enough.
  const uint32_t base = turn.base;
  if (space == Space::kShared && said.size() > 1 && said[1].clock < base) {
    size_t old = 1;
    while (old + 1 < said.size() && said[old + 1].clock < base) ++old;
    said.erase(said.begin(), said.begin() + static_cast<std::ptrdiff_t>(old));
  }
  Fence fence{thread.clock.now, nullptr};
  contribute(thread, fence.seen);
  refresh_clock();
  said.push_back(std::move(fence));
  return true;
}

}  // namespace

std::string name_of_lane(int lane) {
  const int first_reading = reading_lane(0);
  const int first_product = product_lane(0);
  if (lane >= first_product) return "a product of warpgroup " + std::to_string(lane - first_product);
  if (lane < first_reading) return "a copy that ends at an mbarrier";
  const int threads = writing_lane(0) - first_reading;
  return "a bulk store or addition of thread " + std::to_string((lane - first_reading) % threads);
}

Origin origin_here(Word word, Site site) {
  Thread& thread = *turn.thread;
  Origin origin{thread.block, thread.who, word, site, nullptr, thread.block->base};
  contribute(thread, origin.before);
  refresh_clock();
  return origin;
}

AsyncTurn::AsyncTurn(const Origin& origin, int lane, uint32_t clock) : saved_(turn) {
  async_thread.block = origin.block;
  async_thread.who = origin.who;
  async_thread.clock.now = clock;
  async_thread.clock.seen = origin.before;
  turn = Turn();
  turn.thread = &async_thread;
  turn.shared_low = reinterpret_cast<uintptr_t>(origin.block->shared.base);
  turn.shared_bytes = kSharedRoom;
  turn.accesses_left = saved_.accesses_left;
  turn.first_number = static_cast<uint32_t>(origin.who.block * current_launch->rows * kWarpLanes + 1);
  turn.number = turn.first_number + static_cast<uint32_t>(lane);
  turn.clock = clock;
  turn.base = origin.base;
}

AsyncTurn::~AsyncTurn() {
  turn = saved_;
  async_thread.clock = Clock();
}

const Buffer* touch_async(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  const bool shared = address - turn.shared_low < turn.shared_bytes;
  if (const Mark* const write = unfenced_write(address, bytes, where, shared ? &fenced_in_shared : &fenced_in_global)) {
    Fault fault;
    fault.rule = "no proxy fence between a thread's write and asynchronous work on the same bytes";
    fault.steps.push_back({name_of_mark(*write) + " writes", write->where});
    fault.steps.push_back({name_of(speaker()) + " asks for work that " + (kind == Touch::kRead ? "reads" : "writes") + " them", where});
    fault.advice = shared ? "after the write say proxy_fence_shared, then the barrier that orders it before the word"
                          : "after the write say proxy_fence_global, then what orders it before the word";
    fail(std::move(fault));
  }
  return touch(address, bytes, kind, where);
}

bool has_happened(const Mark& mark) { return happened(mark.thread, mark.clock); }

void proxy_fence_shared(Site site) {
  if (say_fence(Word::kProxyFenceShared, Space::kShared, site)) tell_async_proxy();
}
void proxy_fence_global(Site site) { say_fence(Word::kProxyFenceGlobal, Space::kGlobal, site); }

void forget_proxies() {
  for (Fences& all : fences) all.clear();
}

}  // namespace igf::simt
