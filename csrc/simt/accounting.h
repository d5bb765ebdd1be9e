// What a launch asks of memory: bytes, 32-byte sectors and shared-memory wavefronts, beside what would be the least.
//
// A GPU moves memory for 32 lanes at once. The emulator runs one lane after the other, so lanes are put together again
// here: a lane's n-th visit to a place in the source belongs to the same warp access as its neighbours' n-th visit. That
// is exact where the lanes of a warp go around their loops together; where some skip a turn in the middle it may pair
// two turns with each other, which changes sectors and wavefronts but no byte count of distinct addresses.
//
// Rules, of one warp access (CUDA C++ Programming Guide, "Device Memory Accesses" and "Shared Memory"):
//   bytes       addresses asked for, each counted once though several lanes ask for it
//   sectors     pieces of 32 aligned bytes touched; ideal: the bytes divided by 32, rounded up
//   wavefronts  32 banks of 4 bytes; lanes are served together as far as no bank has to give two words. Accesses of 8
//               bytes a lane are made by half warps, of 16 by quarter warps; ideal: the words divided by 32, rounded up
// Not covered: caches. Whether a second read of a byte comes from L1, L2 or memory is seen in unique_loaded alone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "simt/events.h"

namespace igf::simt {

enum class Direction : uint8_t { kLoad, kStore, kAtomic };

struct Flow {
  uint64_t bytes = 0;
  uint64_t unique_bytes = 0;  // of the buffer, over the whole launch
  uint64_t sectors = 0;
  uint64_t ideal_sectors = 0;
};

struct BufferTraffic {
  std::string name;
  uintptr_t begin = 0;
  uint64_t size = 0;
  std::array<Flow, 3> flows{};  // by Direction
};

// One line of the source, one direction, one kind of memory.
struct PlaceTraffic {
  Site site{};       // of a word ...
  uintptr_t pc = 0;  // ... or where a raw access was made; 0 for words
  Space space{};
  Direction direction{};
  uint64_t accesses = 0;  // by warps
  uint64_t bytes = 0;
  uint64_t cost = 0;   // sectors in global memory, wavefronts in shared memory
  uint64_t ideal = 0;  // the least of the same
};

struct LaunchAccount {
  LaunchFacts facts{};
  std::string kernel;
  std::vector<BufferTraffic> buffers;  // those touched
  std::vector<PlaceTraffic> places;
  std::array<uint64_t, static_cast<size_t>(Word::kCount)> said{};  // barriers, shuffles ...: times a thread said it
  uint64_t wavefronts = 0;
  uint64_t ideal_wavefronts = 0;
};

// Accounts every launch while it is the core's observer. A launch that ends with a fault leaves no account.
class Accounting : public Observer {
 public:
  Accounting();
  ~Accounting() override;
  void launch_begins(const LaunchFacts& launch) override;
  void accessed(const Who& who, const Access& access) override;
  void moved(const Who& who, const Access& access) override;
  void said(const Who& who, Word word, Site site) override;
  void launch_ends(const LaunchFacts& launch, const char* fault) override;

  // The accounts since the last call.
  std::vector<LaunchAccount> take() { return std::exchange(launches_, {}); }

 private:
  struct Group;
  struct Visits;
  using Warp = std::vector<std::unique_ptr<Visits>>;  // by place

  uint32_t place_of(const Access& access);
  void settle(const Group& group, PlaceTraffic& place);
  void settle_global(const Group& group, PlaceTraffic& place);
  void settle_shared(const Group& group, PlaceTraffic& place);
  void touch(const Group& group, size_t lane, Direction direction);

  uint32_t threads_ = 0;  // of a block of the present launch
  LaunchAccount now_;
  std::vector<BufferTraffic> traffic_;         // by buffer
  std::vector<std::vector<uint8_t>> touched_;  // by buffer and byte: one bit a direction
  std::vector<Warp> warps_;                    // of all blocks
  std::unordered_map<uint64_t, std::vector<uint32_t>> known_places_;
  std::vector<LaunchAccount> launches_;
};

Accounting& accounting();

}  // namespace igf::simt
