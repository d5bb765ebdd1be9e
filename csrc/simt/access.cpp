#include "simt/access.h"

#include <algorithm>
#include <cstring>

#include "simt/fault.h"
#include "simt/register_watch.h"
#include "simt/shadow.h"

namespace igf::simt {
namespace {

// An atomic that a thread repeats is a loop that waits for others: now and then they must run.
constexpr int64_t kAtomicCost = 1 << 10;   // in accesses of a turn

Touch touch_of(Word word, bool writes) {
  switch (word) {
    case Word::kAtomicAdd:
    case Word::kAtomicMax:
    case Word::kAtomicMin:
    case Word::kAtomicExchange:
    case Word::kAtomicOr:
    case Word::kLoadAcquire:
    case Word::kStoreRelease:
    case Word::kAddAcquireRelease:
    case Word::kAddRelease:
    case Word::kAddFour: return Touch::kAtomic;
    default: return writes ? Touch::kWrite : Touch::kRead;
  }
}

[[noreturn]] void fail_of_alignment(uintptr_t address, uint32_t bytes, Word word, Site site) {
  Fault fault;
  fault.rule = "misaligned access: " + std::to_string(bytes) + " bytes at an address that is " +
               std::to_string(address % bytes) + " past a multiple of " + std::to_string(bytes);
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fail(std::move(fault));
}

void end_turn_now_and_then(Touch kind) {
  turn.accesses_left -= kind == Touch::kAtomic ? kAtomicCost : 1;
  if (turn.accesses_left <= 0) end_long_turn(kind == Touch::kAtomic);
}

}  // namespace

uintptr_t checked_access(uintptr_t address, uint32_t bytes, Word word, Site site, bool writes) {
  const Touch kind = touch_of(word, writes);
  end_turn_now_and_then(kind);
  const Space space = address - turn.shared_low < turn.shared_bytes ? Space::kShared : Space::kGlobal;
  Access access{word, space, address, bytes, site, nullptr, 0};
  if (mutator != nullptr) {
    if (mutator->dropped(speaker(), word, site)) return 0;
    access.address = mutator->address(speaker(), access);
  }
  if (access.address % bytes != 0) fail_of_alignment(access.address, bytes, word, site);
  // A thread's own stack: words may be said of local variables too.
  if (access.address - turn.stack_low < turn.stack_bytes) return access.address;
  if (turn.watch != nullptr && heard(access.address, bytes, writes, where_of(site))) return access.address;
  access.buffer = touch(access.address, bytes, kind, where_of(site));
  if (observer != nullptr) observer->accessed(speaker(), access);
  return access.address;
}

namespace {

// Of 1, 2, 4, 8 or 16 bytes: a move each, where memcpy of a variable number is a call.
void copy(void* to, const void* from, uint32_t bytes) {
  switch (bytes) {
    case 16: std::memcpy(to, from, 16); break;
    case 8: std::memcpy(to, from, 8); break;
    case 4: std::memcpy(to, from, 4); break;
    case 2: std::memcpy(to, from, 2); break;
    default: std::memcpy(to, from, 1);
  }
}

}  // namespace

void read_memory(void* value, const void* place, uint32_t bytes, Word word, Site site) {
  const uintptr_t from = checked_access(reinterpret_cast<uintptr_t>(place), bytes, word, site, false);
  if (from == 0) {
    std::memset(value, 0, bytes);
  } else {
    copy(value, reinterpret_cast<const void*>(from), bytes);
  }
}

void write_memory(void* place, const void* value, uint32_t bytes, Word word, Site site) {
  const uintptr_t to = checked_access(reinterpret_cast<uintptr_t>(place), bytes, word, site, true);
  if (to != 0) copy(reinterpret_cast<void*>(to), value, bytes);
}

namespace {

template <typename T>
T changed(T before, T operand, Word word) {
  switch (word) {
    case Word::kAtomicMax: return std::max(before, operand);
    case Word::kAtomicMin: return std::min(before, operand);
    case Word::kAtomicExchange: return operand;
    case Word::kAtomicOr:
      if constexpr (std::is_integral_v<T>) return before | operand;
      return before;
    default:
      if constexpr (std::is_integral_v<T>) {
        using Unsigned = std::make_unsigned_t<T>;  // wraps around, as on a GPU
        return static_cast<T>(static_cast<Unsigned>(before) + static_cast<Unsigned>(operand));
      }
      return before + operand;
  }
}

template <typename T>
uint64_t change(uintptr_t place, uint64_t operand, Word word) {
  T before;
  T value;
  std::memcpy(&before, reinterpret_cast<const void*>(place), sizeof before);
  std::memcpy(&value, &operand, sizeof value);
  const T after = changed(before, value, word);
  std::memcpy(reinterpret_cast<void*>(place), &after, sizeof after);
  uint64_t bits = 0;
  std::memcpy(&bits, &before, sizeof before);
  return bits;
}

}  // namespace

uint64_t change_memory(void* place, uint64_t operand, Number number, Word word, Site site) {
  const uint32_t bytes = number == Number::kUint64 || number == Number::kInt64 ? 8 : 4;
  const uintptr_t at = checked_access(reinterpret_cast<uintptr_t>(place), bytes, word, site, true);
  if (at == 0) return 0;
  pass_on(*turn.thread, at);
  switch (number) {
    case Number::kInt32: return change<int32_t>(at, operand, word);
    case Number::kUint32: return change<uint32_t>(at, operand, word);
    case Number::kUint64: return change<uint64_t>(at, operand, word);
    case Number::kInt64: return change<int64_t>(at, operand, word);
    default: return change<float>(at, operand, word);
  }
}

void add_four(float* place, const float* values, Site site) {
  check_architecture(90, false, Word::kAddFour, site);
  const uintptr_t at = checked_access(reinterpret_cast<uintptr_t>(place), 16, Word::kAddFour, site, true);
  if (at == 0) return;
  float sums[4];
  std::memcpy(sums, reinterpret_cast<const void*>(at), sizeof sums);
  for (int i = 0; i < 4; ++i) sums[i] += values[i];
  std::memcpy(reinterpret_cast<void*>(at), sums, sizeof sums);
}

uint32_t ordered_access(uint32_t* place, uint32_t value, Word word, Site site) {
  const bool writes = word != Word::kLoadAcquire;
  const uintptr_t at = checked_access(reinterpret_cast<uintptr_t>(place), sizeof *place, word, site, writes);
  if (at == 0) return 0;
  Thread& thread = *turn.thread;
  if (word == Word::kLoadAcquire || word == Word::kAddAcquireRelease) acquire(thread, at);
  if (writes) release(thread, at, word == Word::kStoreRelease);
  refresh_clock();
  uint32_t* const here = reinterpret_cast<uint32_t*>(at);
  const uint32_t before = *here;
  if (writes) *here = word == Word::kStoreRelease ? value : before + value;
  return before;
}

}  // namespace igf::simt
