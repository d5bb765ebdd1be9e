// What the shadow of memory is made of: a cell for each element, the regions they belong to.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>

#include "simt/buffers.h"
#include "simt/order.h"
#include "simt/where.h"

namespace igf::simt {

// One element. `other` holds who has read it, or changed it by atomics, since the last plain write.
struct Cell {
  Mark write;
  Mark other;
};

// Lanes of one warp that read (or changed by atomics) one element at one clock.
struct Readers {
  uint32_t first;  // Mark::thread of the warp's lane 0
  uint32_t lanes;
  uint32_t clock;
  Where where;     // of the last of them
};

struct Region {
  uintptr_t begin;
  uintptr_t end;
  bool read_only;
  int item_shift;
  Cell* cells;
  const Buffer* buffer;
};

// Zeroed memory for cells, kept from launch to launch.
class CellMemory {
 public:
  Cell* take(size_t count) {
    Cell* const taken = cells_ + used_;
    used_ += count;
    return taken;
  }

  // Provides `count` cells in all, zero.
  void provide(size_t count) {
    if (count <= size_) return;
    if (cells_ != nullptr) munmap(cells_, size_ * sizeof(Cell));
    size_ = 0;
    void* memory = mmap(nullptr, count * sizeof(Cell), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cells_ = memory == MAP_FAILED ? nullptr : static_cast<Cell*>(memory);
    if (cells_ == nullptr) throw std::runtime_error("simt: no memory to watch the kernel's buffers");
    size_ = count;
  }

  void give_back() {
    constexpr size_t kCheaperToClear = size_t{1} << 20;
    const size_t bytes = used_ * sizeof(Cell);
    used_ = 0;
    if (bytes == 0) return;
    if (bytes <= kCheaperToClear) {
      std::memset(static_cast<void*>(cells_), 0, bytes);
    } else if (madvise(cells_, size_ * sizeof(Cell), MADV_DONTNEED) != 0) {
      std::memset(static_cast<void*>(cells_), 0, size_ * sizeof(Cell));
    }
  }

 private:
  Cell* cells_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

}  // namespace igf::simt
