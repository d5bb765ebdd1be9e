// Tensor maps: what a tensor copy (device/ptx_bulk.cuh) must know of a tensor in global memory. Made on the host, passed
// to a kernel by value, as `const IGF_GRID_CONSTANT TensorMap map` or in a struct that is passed so.
//
// Source: CUDA driver API, cuTensorMapEncodeTiled; PTX ISA 9.0, "Tensors" (boxes, swizzling modes, out-of-bound fill).
#pragma once

#include <cstdint>

#include "device/context.h"

namespace igf::device {

// How 16-byte pieces of a box lie in shared memory. kNone: in order. k128: the box's inner extent is 128 bytes, the box
// stands on 1024 bytes, and piece p of row r lies where piece p ^ (r % 8) would. k64, k32: p ^ (r / 2 % 4) of rows of 64
// bytes, on 512; p ^ (r / 4 % 2) of rows of 32 bytes, on 256.
enum class Swizzle : int32_t { kNone, k32, k64, k128 };

struct alignas(128) TensorMap {
  uint64_t words[16];
};

// A tensor and the box that one copy moves; dimension 0 is the dense one.
struct TensorMapShape {
  Element element;
  const void* base;      // on 16 bytes
  int dimensions;        // 2 to 5
  int64_t sizes[5];      // elements
  int64_t strides[5];    // bytes, multiples of 16; strides[0] is not used
  int box[5];            // elements, at most 256 each; box[0] elements take a multiple of 16 bytes, the swizzle's at most
  Swizzle swizzle;
};

// Loads of elements outside the tensor give 0; stores and additions to them do nothing. Raises std::runtime_error with
// `name`, the rule and the numbers for a shape that breaks a rule.
TensorMap tensor_map(const char* name, const TensorMapShape& shape);

}  // namespace igf::device
