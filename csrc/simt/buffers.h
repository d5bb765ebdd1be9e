// The memory an op gives to its kernels: where each buffer begins and ends, to the byte, and who may write to it.
//
// The binding words (binding/tensor.h) tell of every pointer they hand out while an op runs. What a kernel touches
// outside these buffers, its shared memory and its stack is out of bounds. Torch-free. Not thread-safe: one op at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace igf::simt {

struct Buffer {
  uintptr_t begin;
  uintptr_t end;       // one past the last byte
  size_t item_bytes;   // of one element
  bool read_only;      // only handed out as const
  std::string name;    // of the op's argument, or "new 0", "new 1", ... for what the op allocated

  size_t bytes() const { return end - begin; }
  bool contains(uintptr_t address, size_t size) const { return begin <= address && address + size <= end; }
};

class Buffers {
 public:
  // Forgets everything: the next op begins.
  void clear();

  // Names memory that belongs to an argument, before the op runs.
  void name(uintptr_t begin, size_t bytes, const std::string& name);
  // Memory `copy` is a dense copy of what begins at `original`, and takes its name.
  void name_copy(uintptr_t copy, size_t bytes, uintptr_t original);
  // The op allocated this memory just now: fills it with 0xFF (NaN) where asked, and forgets what stood there before.
  void allocated(uintptr_t begin, size_t bytes, bool fill);

  // A pointer was handed out. Parts that overlap become one buffer, writable when one of them is.
  void add(uintptr_t begin, size_t bytes, size_t item_bytes, bool read_only);

  // The index of the buffer that holds this byte, -1 for none. Indices stand still while a kernel runs.
  int find(uintptr_t address) {
    if (last_ < all_.size() && all_[last_].begin <= address && address < all_[last_].end) return static_cast<int>(last_);
    return search(address);
  }

  // "x [7 x 4 bytes] ends 8 bytes before it": where an address lies that belongs to nothing.
  std::string nearest(uintptr_t address) const;

  const std::vector<Buffer>& all() const { return all_; }  // sorted by address, none overlaps another
  const Buffer& operator[](int index) const { return all_[static_cast<size_t>(index)]; }

 private:
  struct Name {
    uintptr_t begin;
    uintptr_t end;
    std::string name;
  };
  int search(uintptr_t address);
  std::string name_of(uintptr_t begin, size_t bytes);  // unknown memory gets a name of its own

  std::vector<Buffer> all_;
  std::vector<Name> names_;
  size_t last_ = 0;  // where the last address was found
  int fresh_ = 0;    // allocations of this op so far
  int unnamed_ = 0;
};

Buffers& buffers();

}  // namespace igf::simt
