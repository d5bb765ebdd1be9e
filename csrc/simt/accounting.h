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

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace igf::simt {

enum class Space : uint8_t { kGlobal, kShared };
enum class Direction : uint8_t { kLoad, kStore, kAtomic };

// Where it was said: a word's file and line, or the program counter of a raw access with line 0.
struct Place {
  const void* where;
  int line;
  bool operator==(const Place&) const = default;
};

struct LaneAccess {
  uint32_t block;   // number in the grid
  uint32_t thread;  // number in the block
  Place place;
  uintptr_t address;
  uint32_t bytes;
  Space space;
  Direction direction;
  int buffer;  // index in buffers(); -1 in shared memory
};

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
  Flow loads, stores, atomics;
};

struct PlaceTraffic {
  Place place;
  Space space;
  Direction direction;
  uint64_t accesses = 0;  // by warps
  uint64_t bytes = 0;
  uint64_t cost = 0;   // sectors, or wavefronts
  uint64_t ideal = 0;  // of the same
};

struct LaunchAccount {
  std::string kernel;
  int64_t grid[2] = {1, 1};
  int block[2] = {1, 1};
  std::vector<BufferTraffic> buffers;  // those touched
  std::vector<PlaceTraffic> places;
  uint64_t wavefronts = 0;
  uint64_t ideal_wavefronts = 0;
};

// Off until switched on; one launch at a time.
class Accounting {
 public:
  bool on() const { return on_; }
  void switch_to(bool on) { on_ = on; }

  void begin_launch(const std::string& kernel, int64_t grid_x, int64_t grid_y, int threads_x, int threads_y);
  void access(const LaneAccess& access);
  void block_ended(uint32_t block);
  void end_launch();

  std::vector<LaunchAccount>& launches() { return launches_; }

 private:
  struct Group;
  struct Visits;
  using Warp = std::vector<std::unique_ptr<Visits>>;  // by place
  using Block = std::vector<Warp>;

  uint32_t place_of(const LaneAccess& access);
  void settle(const Group& group, uint32_t place);
  void settle_global(const Group& group, PlaceTraffic& place);
  void settle_shared(const Group& group, PlaceTraffic& place);
  void touch(const Group& group, int lane, Direction direction);

  bool on_ = false;
  uint32_t threads_ = 0;  // of a block of the present launch
  LaunchAccount now_;
  std::vector<BufferTraffic> traffic_;          // by buffer
  std::vector<std::vector<uint8_t>> touched_;   // by buffer and byte: one bit a direction
  std::unordered_map<uint32_t, Block> running_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> known_places_;
  std::vector<LaunchAccount> launches_;
};

Accounting& accounting();

}  // namespace igf::simt
