// Fibers: stacks of their own, switched in user space. One OS thread runs them all.
#pragma once

#include <cstddef>

namespace igf::simt {

// Where a fiber, or the launch itself, stands while another runs.
struct Context {
  void* stack_pointer = nullptr;
  char* stack_low = nullptr;
  size_t stack_bytes = 0;
};

// Stacks for `count` fibers, each with a guard page below it; they are kept for later launches.
class Stacks {
 public:
  static constexpr size_t kBytes = 256 << 10;  // only what is touched takes memory
  static constexpr size_t kGuardBytes = 4 << 10;

  ~Stacks();
  // Makes at least `count` stacks. Throws std::runtime_error when the system gives no memory.
  void provide(size_t count);
  char* low(size_t index) const { return stacks_ + index * (kBytes + kGuardBytes) + kGuardBytes; }
  // Tells whether an address lies on any of the stacks, and on which.
  bool holds(const void* address, size_t* index) const;

 private:
  char* stacks_ = nullptr;
  size_t count_ = 0;
};

// Prepares `context` to begin entry() on the stack [low, low + bytes); `stagger` in [0, 64) moves its first frame, so
// that equal frames of many fibers do not share one set of the cache.
void prepare(Context& context, char* low, size_t bytes, size_t stagger, void (*entry)());

// Saves the caller's place in `from` and goes on in `to`; returns when something switches back.
void switch_context(Context& from, Context& to);

// The context of the OS thread that starts the fibers.
Context this_os_thread();

// To be called first on a new fiber.
void fiber_started();

}  // namespace igf::simt
