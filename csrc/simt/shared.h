// The shared memory of a resident block: static arrays between red zones, then the dynamic block on 1024 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/site.h"

namespace igf::simt {

constexpr size_t kRedZone = 64;
constexpr size_t kSharedGrain = 16;  // arrays begin at a multiple of it

// Room for one block: the dynamic block, static arrays, red zones around them.
constexpr size_t kSharedRoom = (227 << 10) + (48 << 10) + (64 << 10);

// One array, at the same place in every block of a launch.
struct SharedArray {
  const char* name;
  const char* function;  // the address of its text tells instances of a template apart
  Site site;
  size_t offset;
  size_t bytes;
  uint32_t item_bytes;
  // Accesses are watched in cells of 1, 2 or 4 bytes: the element's size, 4 where it is larger, 2 in the dynamic block.
  // Threads that use different bytes of one cell are taken to race.
  int cell_shift;
  size_t first_cell;
};

// The arrays that threads of the launch have come to so far. They are added as they are met; offsets stand still.
struct SharedLayout {
  std::vector<SharedArray> arrays;        // the dynamic block first, with 0 bytes where there is none
  std::vector<uint8_t> array_of_grain;    // by offset / kSharedGrain: number in `arrays` + 1, 0 in a red zone
  size_t end = 0;                         // of the last array
  size_t static_bytes = 0;
};

struct SharedMemory {
  char* base = nullptr;  // on 1024 bytes
};

// Begins a launch: memory for `resident` blocks, filled with 0xFF. Throws std::runtime_error for too much.
void begin_shared(int resident, int64_t dynamic_bytes, int64_t limit);
SharedMemory shared_memory(int resident_block);
// A block begins: all its bytes are 0xFF again, which is NaN.
void refill(const SharedMemory& memory);

const SharedLayout& shared_layout();
// Bytes from `base` in which the launch's arrays lie so far.
size_t shared_extent();

// The words, on a fiber: this thread's block's copy of a static array, of the dynamic block; the address of a shared
// variable as PTX instructions take it.
char* shared_array(const char* name, const char* function, size_t bytes, uint32_t item_bytes, Site site);
unsigned char* dynamic_shared(Site site);
uint32_t shared_address(const void* pointer, Site site);

// "scratch[3] (csrc/...:40)", or how far outside of which array.
std::string describe_shared(size_t offset, uint32_t bytes);

}  // namespace igf::simt
