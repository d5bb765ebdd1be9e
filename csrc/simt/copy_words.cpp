// cp.async: issue, groups, waits. copies.h holds what is under way and says the rules.
#include "simt/fault.h"
#include "simt/ptx_words.h"
#include "simt/shadow.h"
#include "simt/sync.h"

namespace igf::simt {
namespace {

Copies& copies() { return turn.thread->block->copies; }

bool in_shared(uintptr_t address) { return address - turn.shared_low < turn.shared_bytes; }

[[noreturn]] void fail_of_copy(const std::string& rule, Site site, const char* advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(Word::kCopyAsync), where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

void check_form(uintptr_t shared, uintptr_t global, uint32_t bytes, int source_bytes, Site site) {
  const std::string size = std::to_string(bytes);
  if (!in_shared(shared) || in_shared(global)) {
    fail_of_copy("an asynchronous copy that does not go from global to shared memory", site,
                 "the first pointer must be to shared memory, the second to global memory");
  }
  if (shared % bytes != 0 || global % bytes != 0) {
    const bool to = shared % bytes != 0;
    fail_of_copy("misaligned asynchronous copy: of " + size + " bytes, its " + (to ? "destination" : "source") + " is " +
                     std::to_string((to ? shared : global) % bytes) + " past a multiple of " + size,
                 site, "both addresses must be multiples of the copy's size, also where fewer bytes are read");
  }
  if (source_bytes < 0 || static_cast<uint32_t>(source_bytes) > bytes) {
    fail_of_copy("an asynchronous copy of " + size + " bytes asks for " + std::to_string(source_bytes) +
                     " bytes of its source", site, "0 to the copy's size");
  }
}

bool arrives_at_once() {
  Launch& launch = *current_launch;
  if (launch.options.arrival == Arrival::kRandom) return (launch.random() & 1) != 0;
  return launch.options.arrival == Arrival::kEager;
}

// The bytes of ended copies are from now on written by the thread that waited.
void own(const std::vector<Copy>& ended) {
  for (const Copy& copy : ended) touch(copy.shared, copy.bytes, Touch::kWrite, where_of(copy.site));
  const Copy* const changed = copies().changed();
  if (changed == nullptr) return;
  fail_of_copy("the source of an asynchronous copy changed before the copy was waited for", changed->site,
               "write to the source before the copy is issued, or after the wait");
}

}  // namespace

void copy_async(void* shared, const void* global, uint32_t bytes, int source_bytes, Site site) {
  Copy copy;
  copy.shared = reinterpret_cast<uintptr_t>(shared);
  copy.global = reinterpret_cast<uintptr_t>(global);
  copy.bytes = bytes;
  copy.thread = speaker().thread;
  copy.site = site;
  check_form(copy.shared, copy.global, bytes, source_bytes, site);
  copy.source_bytes = static_cast<uint32_t>(source_bytes);
  if (mutator != nullptr) {
    if (mutator->dropped(speaker(), Word::kCopyAsync, site)) return;
    copy.global = mutator->address(speaker(), {Word::kCopyAsync, Space::kGlobal, copy.global, bytes, site, nullptr});
  }
  if (copy.source_bytes > 0) {
    const Buffer* const buffer = touch(copy.global, copy.source_bytes, Touch::kRead, where_of(site));
    if (observer != nullptr) {
      observer->accessed(speaker(), {Word::kCopyAsync, Space::kGlobal, copy.global, copy.source_bytes, site, buffer});
    }
  }
  touch(copy.shared, bytes, Touch::kWrite, where_of(site));
  if (observer != nullptr) {
    observer->accessed(speaker(), {Word::kCopyAsync, Space::kShared, copy.shared, bytes, site, nullptr});
  }
  copies().issue(copy, arrives_at_once());
}

void copy_commit(Site site) {
  if (say(Word::kCopyCommit, site)) return;
  copies().commit(speaker().thread);
}

void copy_wait(int pending, Site site) {
  if (say(Word::kCopyWait, site)) return;
  own(copies().end(speaker().thread, pending));
}

void copy_wait_all(Site site) {
  if (say(Word::kCopyWait, site)) return;
  own(copies().end_all(speaker().thread));
}

void fail_of_bytes_under_way(const Copy& copy, const std::string& what, Where where) {
  Fault fault;
  fault.rule = "bytes of an asynchronous copy are touched before it was waited for";
  fault.steps.push_back({name_of(speaker()) + " " + what, where});
  fault.steps.push_back({"thread " + std::to_string(copy.thread) + " of the block issued the copy", where_of(copy.site)});
  fault.advice = "wait for the copy's group first; threads other than the issuer also need a barrier after the wait";
  fail(std::move(fault));
}

void check_copies_at_end(Thread& thread) {
  const Copy* const copy = thread.block->copies.first_of(thread.who.thread);
  if (copy == nullptr) return;
  Fault fault;
  fault.rule = "an asynchronous copy is still under way at the end of the kernel";
  fault.steps.push_back({name_of(thread.who) + " issued it and returned", where_of(copy->site)});
  fault.advice = "wait for every copy: cp_async_wait<0> after the last commit, or cp_async_wait_all";
  fail(std::move(fault));
}

}  // namespace igf::simt
