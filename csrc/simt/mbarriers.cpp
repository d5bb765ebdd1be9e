#include "simt/mbarriers.h"

#include <algorithm>

#include "simt/async_words.h"
#include "simt/bulk.h"
#include "simt/fault.h"
#include "simt/proxies.h"
#include "simt/shadow.h"

namespace igf::simt {
namespace {

constexpr int kMost = (1 << 20) - 1;  // arrivals of a phase; bytes under way
constexpr size_t kBytes = 8;
constexpr int kSince = 90;

[[noreturn]] void fail_at(const std::string& rule, Word word, Site site, const std::string& advice,
                          const Mbarrier* barrier = nullptr) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  if (barrier != nullptr) {
    fault.steps.push_back({"thread " + std::to_string(barrier->thread) + " began the mbarrier", where_of(barrier->site)});
  }
  fault.advice = advice;
  fail(std::move(fault));
}

Mbarriers& mbarriers_of(Block& block) {
  if (block.mbarriers == nullptr) block.mbarriers = std::make_shared<Mbarriers>();
  return *block.mbarriers;
}

std::string place_of(const Block& block, uintptr_t address) {
  return describe_shared(address - reinterpret_cast<uintptr_t>(block.shared.base), kBytes);
}

// The phase has ended if nothing is missing: whoever waits goes on.
void end_phase(Block& block, Mbarrier& barrier, Word word, Site site) {
  if (barrier.missing > 0) return;
  if (barrier.bytes < 0) {
    fail_at("more bytes came to " + place_of(block, barrier.address) + " than were announced in phase " +
                std::to_string(barrier.phase) + ": " + std::to_string(-barrier.bytes) + " too many",
            word, site, "announce all bytes of the phase's copies, what lies outside of the tensor too", &barrier);
  }
  if (barrier.bytes > 0) return;
  if (barrier.under_way > 0) {
    fail_at("phase " + std::to_string(barrier.phase) + " of " + place_of(block, barrier.address) +
                " ended while " + std::to_string(barrier.under_way) + " of its copies were under way",
            word, site, "fewer bytes were announced than the phase's copies bring", &barrier);
  }
  if (!barrier.woken.empty()) {
    fail_at("phase " + std::to_string(barrier.phase) + " of " + place_of(block, barrier.address) +
                " ended before thread " + std::to_string(barrier.woken.front()) +
                " has seen the end of the phase before, for which it waits",
            word, site, "it might wait for ever: who waits for a phase must be waited for in the next", &barrier);
  }
  ++barrier.phase;
  barrier.missing = barrier.arrivals;
  barrier.released = joined(barrier.released, barrier.arriving);
  barrier.released =
      joined(barrier.released, only_lane(block.number, mbarrier_lane(barrier.number), kAsyncClock + barrier.phase));
  barrier.arriving = nullptr;
  for (const int waiting : barrier.waiting) {
    receive(thread_of(block, waiting), barrier.released);
    make_ready(thread_of(block, waiting));
  }
  barrier.woken.swap(barrier.waiting);
  current_launch->waits_in_vain = 0;
}

void arrive(Mbarrier& barrier, Word word, Site site) {
  if (barrier.missing == 0) {
    fail_at("an arrival too many: all " + std::to_string(barrier.arrivals) + " of phase " +
                std::to_string(barrier.phase) + " of " + place_of(*turn.thread->block, barrier.address) +
                " have come, its bytes have not",
            word, site, "mbarrier_init says how many arrivals a phase has", &barrier);
  }
  contribute(*turn.thread, barrier.arriving);
  refresh_clock();
  --barrier.missing;
  end_phase(*turn.thread->block, barrier, word, site);
}

void check_place(uintptr_t address, Word word, Site site) {
  if (address - turn.shared_low >= turn.shared_bytes) {
    fail_at("an mbarrier outside of shared memory", word, site, "IGF_SHARED_ARRAY(uint64_t, name, count)");
  }
  if (address % kBytes != 0) {
    fail_at("misaligned mbarrier: " + std::to_string(address % kBytes) + " bytes past a multiple of 8", word, site,
            "IGF_SHARED_ARRAY(uint64_t, name, count)");
  }
}

}  // namespace

Mbarrier* Mbarriers::at(uintptr_t address) {
  const auto found = std::find_if(all.begin(), all.end(), [=](const Mbarrier& b) { return b.address == address; });
  return found == all.end() ? nullptr : &*found;
}

const Mbarrier* Mbarriers::touched(uintptr_t address, size_t bytes) const {
  if (address >= high || address + bytes <= low) return nullptr;
  for (const Mbarrier& barrier : all) {
    if (address < barrier.address + kBytes && barrier.address < address + bytes) return &barrier;
  }
  return nullptr;
}

void tell_async_proxy() {
  Block& block = *turn.thread->block;
  if (block.mbarriers == nullptr) return;
  for (Mbarrier& barrier : block.mbarriers->all) barrier.fenced |= barrier.thread == speaker().thread;
}

Mbarrier& mbarrier_at(const uint64_t* barrier, Word word, Site site) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(barrier);
  if (--turn.accesses_left <= 0) end_long_turn(false);
  check_place(address, word, site);
  Block& block = *turn.thread->block;
  Mbarrier* const found = block.mbarriers == nullptr ? nullptr : block.mbarriers->at(address);
  if (found == nullptr) {
    fail_at("no mbarrier was begun at " + place_of(block, address), word, site,
            "one thread says mbarrier_init and mbarrier_init_fence, then all meet at a block_barrier");
  }
  if (!has_happened(found->begun)) {
    fail_at("an mbarrier is used by a thread that nothing orders after its beginning", word, site,
            "a block_barrier must stand between mbarrier_init and its use by other threads", found);
  }
  return *found;
}

void expect_copy(Mbarrier& barrier, Word word, Site site) {
  if (!barrier.fenced) {
    fail_at("a copy ends at an mbarrier that the async proxy does not know of", word, site,
            "say mbarrier_init_fence after mbarrier_init, by the same thread, before the barrier that all meet at", &barrier);
  }
  ++barrier.under_way;
  barrier.loads = barrier.phase + 1;
  barrier.load_site = site;
}

void complete_bytes(Block& block, Mbarrier& barrier, uint32_t bytes, Word word, Site site) {
  --barrier.under_way;
  barrier.bytes -= bytes;
  end_phase(block, barrier, word, site);
}

void check_mbarriers_at_end(const Block& block) {
  if (block.mbarriers == nullptr) return;
  for (const Mbarrier& barrier : block.mbarriers->all) {
    if (barrier.loads <= barrier.waited) continue;
    Fault fault;
    fault.rule = "a copy to shared memory is not waited for at the end of its block";
    fault.steps.push_back({"it ends at " + place_of(block, barrier.address) + ", phase " +
                               std::to_string(barrier.loads - 1) + "; it was asked for", where_of(barrier.load_site)});
    fault.advice = "somebody must wait for that phase: shared memory ends with the block";
    fail(std::move(fault));
  }
}

std::string describe(const Block& block, const Mbarrier& barrier) {
  std::string text = place_of(block, barrier.address) + ": phase " + std::to_string(barrier.phase) + " lacks " +
                     std::to_string(barrier.missing) + " of " + std::to_string(barrier.arrivals) + " arrivals";
  if (barrier.bytes > 0) text += " and " + std::to_string(barrier.bytes) + " bytes";
  if (barrier.bytes < 0) text += "; " + std::to_string(-barrier.bytes) + " bytes came that were not announced";
  return text;
}

void fail_of_mbarrier_bytes(const Mbarrier& barrier, const std::string& what, Where where) {
  Fault fault;
  fault.rule = "bytes of an mbarrier are touched otherwise than by its words";
  fault.steps.push_back({name_of(speaker()) + " " + what, where});
  fault.steps.push_back({"thread " + std::to_string(barrier.thread) + " began the mbarrier", where_of(barrier.site)});
  fault.advice = "what stands there is the machine's own";
  fail(std::move(fault));
}

void mbarrier_init(uint64_t* barrier, int arrivals, Site site) {
  check_architecture(kSince, false, Word::kMbarrierInit, site);
  if (say(Word::kMbarrierInit, site)) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(barrier);
  check_place(address, Word::kMbarrierInit, site);
  if (arrivals < 1 || arrivals > kMost) {
    fail_at("an mbarrier of " + std::to_string(arrivals) + " arrivals", Word::kMbarrierInit, site, "1 to 2^20 - 1");
  }
  Mbarriers& mbarriers = mbarriers_of(*turn.thread->block);
  if (const Mbarrier* const known = mbarriers.touched(address, kBytes)) {
    fail_at("an mbarrier is begun where one stands already", Word::kMbarrierInit, site, "begin each once", known);
  }
  touch(address, kBytes, Touch::kWrite, where_of(site));
  give_to_mbarrier(address, kBytes, where_of(site));
  Mbarrier fresh;
  fresh.address = address;
  fresh.number = static_cast<int>(mbarriers.all.size());
  fresh.thread = speaker().thread;
  fresh.begun = {turn.number, turn.clock, 0};
  fresh.site = site;
  fresh.arrivals = fresh.missing = arrivals;
  mbarriers.all.push_back(std::move(fresh));
  mbarriers.low = std::min(mbarriers.low, address);
  mbarriers.high = std::max(mbarriers.high, address + kBytes);
}

void mbarrier_init_fence(Site site) {
  check_architecture(kSince, false, Word::kMbarrierInitFence, site);
  if (say(Word::kMbarrierInitFence, site)) return;
  tell_async_proxy();
}

void mbarrier_arrive(uint64_t* barrier, Site site) {
  check_architecture(kSince, false, Word::kMbarrierArrive, site);
  if (say(Word::kMbarrierArrive, site)) return;
  arrive(mbarrier_at(barrier, Word::kMbarrierArrive, site), Word::kMbarrierArrive, site);
  stir_copies();
}

void mbarrier_arrive_expecting(uint64_t* barrier, int bytes, Site site) {
  constexpr Word kWord = Word::kMbarrierArriveExpecting;
  check_architecture(kSince, false, kWord, site);
  if (say(kWord, site)) return;
  bytes = operand_of(kWord, site, bytes);
  Mbarrier& found = mbarrier_at(barrier, kWord, site);
  if (bytes < 0 || found.bytes + bytes > kMost) {
    fail_at(std::to_string(bytes) + " bytes are announced", kWord, site, "0 to 2^20 - 1 under way at an mbarrier");
  }
  found.bytes += bytes;
  arrive(found, kWord, site);
  stir_copies();
}

void mbarrier_wait(uint64_t* barrier, int parity, Site site) {
  check_architecture(kSince, false, Word::kMbarrierWait, site);
  if (say(Word::kMbarrierWait, site)) return;
  parity = operand_of(Word::kMbarrierWait, site, parity);
  stir_copies();
  Mbarrier& found = mbarrier_at(barrier, Word::kMbarrierWait, site);
  if (parity != 0 && parity != 1) {
    fail_at("a wait for parity " + std::to_string(parity), Word::kMbarrierWait, site, "0 or 1: the phase's number modulo 2");
  }
  Thread& thread = *turn.thread;
  if (static_cast<int>(found.phase & 1) != parity) {
    receive(thread, found.released);
    found.waited = found.phase;
    return;
  }
  found.waiting.push_back(thread.who.thread);
  thread.waits_mbarrier = found.address;
  wait_here(Word::kMbarrierWait, site);
  std::erase(found.woken, thread.who.thread);
  found.waited = found.phase;
}

}  // namespace igf::simt
