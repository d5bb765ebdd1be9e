// What a tensor map may say: the rules of cuTensorMapEncodeTiled, checked before that call and by the emulator alike.
//
// Source: CUDA driver API, cuTensorMapEncodeTiled (arguments; interleave none, element strides of 1).
#pragma once

#include <stdexcept>
#include <string>

#include "device/tensor_map.cuh"

namespace igf::device {

// Bytes of a row of the pattern, 0 for none.
inline int swizzle_width(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::k32: return 32;
    case Swizzle::k64: return 64;
    case Swizzle::k128: return 128;
    default: return 0;
  }
}

// What the box in shared memory must stand on: there the pattern begins anew.
inline int swizzle_alignment(Swizzle swizzle) {
  return swizzle == Swizzle::kNone ? 128 : 8 * swizzle_width(swizzle);
}

namespace detail {

inline void tensor_map_rule(const char* name, bool holds, const std::string& rule) {
  if (!holds) throw std::runtime_error(std::string(name) + ": no tensor map: " + rule);
}

inline void check_dimension(const char* name, const TensorMapShape& shape, int d) {
  const std::string which = " of dimension " + std::to_string(d);
  tensor_map_rule(name, shape.sizes[d] >= 1 && shape.sizes[d] <= int64_t{1} << 32,
                  "the size" + which + " is " + std::to_string(shape.sizes[d]) + ", not 1 to 2^32");
  tensor_map_rule(name, shape.box[d] >= 1 && shape.box[d] <= 256,
                  "the box has " + std::to_string(shape.box[d]) + " elements" + which + ", not 1 to 256");
  if (d == 0) return;
  const int64_t stride = shape.strides[d];
  tensor_map_rule(name, stride >= 0 && stride < int64_t{1} << 40 && stride % 16 == 0,
                  "the stride" + which + " is " + std::to_string(stride) +
                      " bytes, not a multiple of 16 below 2^40");
}

}  // namespace detail

// Raises std::runtime_error with `name`, the rule and the numbers for a shape that breaks a rule.
inline void check_tensor_map(const char* name, const TensorMapShape& shape) {
  using detail::tensor_map_rule;
  tensor_map_rule(name, shape.dimensions >= 2 && shape.dimensions <= 5,
                  std::to_string(shape.dimensions) + " dimensions, not 2 to 5");
  tensor_map_rule(name, shape.base != nullptr && stands_on(shape.base, 16), "the tensor does not stand on 16 bytes");
  for (int d = 0; d < shape.dimensions; ++d) detail::check_dimension(name, shape, d);
  const int64_t row = shape.box[0] * static_cast<int64_t>(element_bytes(shape.element));
  tensor_map_rule(name, row % 16 == 0, "the box has rows of " + std::to_string(row) + " bytes, not a multiple of 16");
  const int width = swizzle_width(shape.swizzle);
  tensor_map_rule(name, width == 0 || row == width,
                  "the box has rows of " + std::to_string(row) + " bytes, its swizzle rows of " +
                      std::to_string(width));
}

}  // namespace igf::device
