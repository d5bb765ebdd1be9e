#include "simt/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

// IGF_SIMT_UCONTEXT takes the slow switch where the fast one would do, to test it.
#if !defined(__x86_64__) && !defined(IGF_SIMT_UCONTEXT)
#define IGF_SIMT_UCONTEXT
#endif
#if defined(IGF_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

// AddressSanitizer, where kernels are compiled under it, must be told which stack is in use, and forgets nothing of
// frames that never returned. Weak: elsewhere their addresses are 0.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* low, size_t bytes);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* saved, const void** low, size_t* bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* low, size_t bytes);
}

namespace igf::simt {

namespace {
bool under_sanitizer() { return &__sanitizer_start_switch_fiber != nullptr; }
}  // namespace

Stacks::~Stacks() {
  if (stacks_ != nullptr) munmap(stacks_, count_ * (kBytes + kGuardBytes));
}

void Stacks::provide(size_t count) {
  if (count <= count_) return;
  constexpr size_t kStep = kBytes + kGuardBytes;
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, count * kStep, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::runtime_error("simt: no memory for the stacks of " + std::to_string(count) + " threads");
  }
  char* const stacks = static_cast<char*>(memory);
  for (size_t i = 0; i < count; ++i) {
    if (mprotect(stacks + i * kStep, kGuardBytes, PROT_NONE) != 0) {
      munmap(memory, count * kStep);
      throw std::runtime_error("simt: no guard pages for the stacks of " + std::to_string(count) + " threads");
    }
  }
  if (stacks_ != nullptr) munmap(stacks_, count_ * kStep);
  stacks_ = stacks;
  count_ = count;
}

bool Stacks::holds(const void* address, size_t* index) const {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(stacks_);
  *index = offset / (kBytes + kGuardBytes);
  return stacks_ != nullptr && *index < count_;
}

#if !defined(IGF_SIMT_UCONTEXT)

// The System V ABI asks a function to keep these six registers and the stack pointer; the rest is the caller's to save.
asm(R"(
    .text
    .globl igf_simt_switch
    .hidden igf_simt_switch
    .type igf_simt_switch, @function
igf_simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size igf_simt_switch, .-igf_simt_switch
)");

extern "C" void igf_simt_switch(void** save, void* load) __attribute__((visibility("hidden")));

namespace {

void place_entry(Context& context, char* top, void (*entry)()) {
  constexpr int kSaved = 6;
  // Two words above the entry's address: at entry() the stack pointer is 8 below a multiple of 16, as after a call.
  void** frame = reinterpret_cast<void**>(top) - kSaved - 2;
  for (int i = 0; i < kSaved; ++i) frame[i] = nullptr;
  frame[kSaved] = reinterpret_cast<void*>(entry);
  frame[kSaved + 1] = nullptr;  // entry() has no caller
  context.stack_pointer = frame;
}

void exchange_stacks(Context& from, Context& to) { igf_simt_switch(&from.stack_pointer, to.stack_pointer); }

}  // namespace

#else

namespace {

// Slower by the two system calls a switch makes. stack_pointer holds an owned ucontext_t.
ucontext_t* context_of(Context& context) {
  if (context.stack_pointer == nullptr) context.stack_pointer = new ucontext_t();
  return static_cast<ucontext_t*>(context.stack_pointer);
}

void place_entry(Context& context, char* top, void (*entry)()) {
  ucontext_t* const state = context_of(context);
  getcontext(state);
  state->uc_stack.ss_sp = context.stack_low;
  state->uc_stack.ss_size = static_cast<size_t>(top - context.stack_low);
  state->uc_link = nullptr;
  makecontext(state, entry, 0);
}

void exchange_stacks(Context& from, Context& to) { swapcontext(context_of(from), context_of(to)); }

}  // namespace

#endif

void prepare(Context& context, char* low, size_t bytes, size_t stagger, void (*entry)()) {
  if (&__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(low, bytes);
  context.stack_low = low;
  context.stack_bytes = bytes;
  place_entry(context, low + bytes - stagger * 64, entry);
}

void fiber_started() {
  if (under_sanitizer()) __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
}

Context this_os_thread() {
  Context context;
  if (!under_sanitizer()) return context;  // else nobody asks where the stack lies
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* low = nullptr;
  pthread_attr_getstack(&attributes, &low, &context.stack_bytes);
  pthread_attr_destroy(&attributes);
  context.stack_low = static_cast<char*>(low);
  return context;
}

void switch_context(Context& from, Context& to) {
  if (!under_sanitizer()) return exchange_stacks(from, to);
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.stack_low, to.stack_bytes);
  exchange_stacks(from, to);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

}  // namespace igf::simt
