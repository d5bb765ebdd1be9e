// What g++ -fsanitize=thread calls at every plain load and store of a kernel. The runtime library of that sanitizer is
// not linked: these are the emulator's own, and they check instead of watching OS threads.
//
// They run on the fiber, in the middle of any expression, so they do nothing slow unless the kernel has broken a rule.
// The code around kernels in the same file (launchers) calls them too, while no thread has its turn: then they return.
#include <cstring>

#include "simt/buffers.h"
#include "simt/fault.h"
#include "simt/register_watch.h"
#include "simt/shadow.h"

namespace igf::simt {
namespace {

[[noreturn]] void fail_of_alignment(uintptr_t address, uint32_t bytes, const void* counter) {
  Fault fault;
  fault.rule = "misaligned access: " + std::to_string(bytes) + " bytes at an address that is " +
               std::to_string(address % bytes) + " past a multiple of " + std::to_string(bytes);
  fault.steps.push_back({name_of(speaker()), where_of(counter)});
  fail(std::move(fault));
}

// Everything but the thread's own stack, and that too where it is watched.
__attribute__((noinline)) void hear(uintptr_t address, uint32_t bytes, bool writes, const void* counter) {
  if (turn.watch != nullptr && heard(address, bytes, writes, where_of(counter))) return;
  if (--turn.accesses_left <= 0) end_long_turn(false);
  const Buffer* const buffer = touch(address, bytes, writes ? Touch::kWrite : Touch::kRead, where_of(counter));
  if (observer == nullptr) return;
  const bool shared = address - turn.shared_low < turn.shared_bytes;
  if (!shared && buffer == nullptr) return;  // an argument of the kernel, or a constant
  observer->accessed(speaker(), {writes ? Word::kRawWrite : Word::kRawRead, shared ? Space::kShared : Space::kGlobal,
                                 address, bytes, Site(), buffer, reinterpret_cast<uintptr_t>(counter)});
}

inline bool is_own_stack(uintptr_t address) { return address - turn.stack_low < turn.stack_bytes; }

template <uint32_t kBytes, bool kWrites, bool kAligned>
inline void access(const void* place, const void* counter) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(place);
  if (is_own_stack(address) || turn.thread == nullptr) return;
  if (kAligned && address % kBytes != 0) fail_of_alignment(address, kBytes, counter);
  hear(address, kBytes, kWrites, counter);
}

inline void range(const void* place, size_t bytes, bool writes, const void* counter) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(place);
  if (is_own_stack(address) || turn.thread == nullptr || bytes == 0) return;
  hear(address, static_cast<uint32_t>(bytes), writes, counter);
}

}  // namespace
}  // namespace igf::simt

extern "C" {

#define IGF_COUNTER __builtin_return_address(0)
#define IGF_HOOK(bytes)                                                                                            \
  void __tsan_read##bytes(void* place) { igf::simt::access<bytes, false, true>(place, IGF_COUNTER); }              \
  void __tsan_write##bytes(void* place) { igf::simt::access<bytes, true, true>(place, IGF_COUNTER); }              \
  void __tsan_unaligned_read##bytes(void* place) { igf::simt::access<bytes, false, false>(place, IGF_COUNTER); }   \
  void __tsan_unaligned_write##bytes(void* place) { igf::simt::access<bytes, true, false>(place, IGF_COUNTER); }   \
  void __tsan_volatile_read##bytes(void* place) { igf::simt::access<bytes, false, true>(place, IGF_COUNTER); }     \
  void __tsan_volatile_write##bytes(void* place) { igf::simt::access<bytes, true, true>(place, IGF_COUNTER); }

IGF_HOOK(1)
IGF_HOOK(2)
IGF_HOOK(4)
IGF_HOOK(8)
IGF_HOOK(16)

void __tsan_read_range(void* place, size_t bytes) { igf::simt::range(place, bytes, false, IGF_COUNTER); }
void __tsan_write_range(void* place, size_t bytes) { igf::simt::range(place, bytes, true, IGF_COUNTER); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// Copies and fills that the compiler or the source makes by a call (simt/device/words.h names them so).
void* igf_simt_memcpy(void* to, const void* from, size_t bytes) {
  igf::simt::range(from, bytes, false, IGF_COUNTER);
  igf::simt::range(to, bytes, true, IGF_COUNTER);
  return std::memcpy(to, from, bytes);
}
void* igf_simt_memset(void* to, int value, size_t bytes) {
  igf::simt::range(to, bytes, true, IGF_COUNTER);
  return std::memset(to, value, bytes);
}
void* igf_simt_memmove(void* to, const void* from, size_t bytes) {
  igf::simt::range(from, bytes, false, IGF_COUNTER);
  igf::simt::range(to, bytes, true, IGF_COUNTER);
  return std::memmove(to, from, bytes);
}

// Atomics of the C++ library in code around kernels (guards of static variables, shared_ptr): done as they are.
#define IGF_ATOMIC(bits, type)                                                                                    \
  type __tsan_atomic##bits##_load(const volatile type* place, int) {                                              \
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);                                                              \
  }                                                                                                               \
  void __tsan_atomic##bits##_store(volatile type* place, type value, int) {                                       \
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                               \
  type __tsan_atomic##bits##_exchange(volatile type* place, type value, int) {                                    \
    return __atomic_exchange_n(place, value, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                               \
  type __tsan_atomic##bits##_fetch_add(volatile type* place, type value, int) {                                   \
    return __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                               \
  type __tsan_atomic##bits##_fetch_sub(volatile type* place, type value, int) {                                   \
    return __atomic_fetch_sub(place, value, __ATOMIC_SEQ_CST);                                                    \
  }                                                                                                               \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* place, type* expected, type value, int, int) { \
    return __atomic_compare_exchange_n(place, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);        \
  }

IGF_ATOMIC(8, uint8_t)
IGF_ATOMIC(32, uint32_t)
IGF_ATOMIC(64, uint64_t)

}  // extern "C"
