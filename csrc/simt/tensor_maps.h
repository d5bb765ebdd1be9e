// Tensor maps as the emulator writes and reads them: other bits than a GPU's, the same rules.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/tensor_map.cuh"

namespace igf::simt {

// The shape that tensor_map() wrote into it. False: these are no bits of tensor_map().
bool read_tensor_map(const device::TensorMap& map, device::TensorMapShape& shape);

// Bytes of the box in shared memory.
size_t box_bytes(const device::TensorMapShape& shape);

// Where the 16 bytes at `offset` of a box in order lie in shared memory, from where the box stands.
size_t swizzled(size_t offset, device::Swizzle swizzle);

// A row of a box, dimension 0: its place in the box in order, and the part of it that lies in the tensor.
struct BoxRow {
  size_t offset;      // in the box, of its first byte in the tensor
  uintptr_t address;  // in global memory
  uint32_t bytes;
};

// Walks over the rows of the box at these coordinates that lie in the tensor, at least in part.
class BoxRows {
 public:
  BoxRows(const device::TensorMapShape& shape, const int* at);
  // The next row; false after the last.
  bool next(BoxRow& row);

 private:
  bool place(BoxRow& row) const;

  const device::TensorMapShape& shape_;
  const int* at_;
  int index_[5] = {};  // in the box, of dimensions 1 and up
  size_t row_ = 0;
  size_t rows_ = 1;
};

}  // namespace igf::simt
