#include "simt/tensor_maps.h"

#include <algorithm>

#include "device/tensor_map_rules.h"

namespace igf {
namespace {

// words: 0 what tells a map from garbage, 1 base, 2 element, dimensions and swizzle, 3-4 box, 5-9 sizes, 10-13 strides.
constexpr uint64_t kWritten = 0x6967662074656e73;

uint64_t digest(const device::TensorMap& map) {
  uint64_t value = kWritten;
  for (int word = 1; word < 16; ++word) value = (value ^ map.words[word]) * 0x9e3779b97f4a7c15 + (value >> 31);
  return value;
}

}  // namespace

device::TensorMap device::tensor_map(const char* name, const TensorMapShape& shape) {
  check_tensor_map(name, shape);
  TensorMap map{};
  map.words[1] = reinterpret_cast<uintptr_t>(shape.base);
  map.words[2] = static_cast<uint64_t>(shape.element) | static_cast<uint64_t>(shape.dimensions) << 8 |
                 static_cast<uint64_t>(shape.swizzle) << 16;
  for (int d = 0; d < shape.dimensions; ++d) {
    map.words[3 + d / 4] |= static_cast<uint64_t>(shape.box[d]) << (16 * (d % 4));
    map.words[5 + d] = static_cast<uint64_t>(shape.sizes[d]);
    if (d > 0) map.words[9 + d] = static_cast<uint64_t>(shape.strides[d]);
  }
  map.words[0] = digest(map);
  return map;
}

namespace simt {

bool read_tensor_map(const device::TensorMap& map, device::TensorMapShape& shape) {
  if (map.words[0] != digest(map)) return false;
  shape.base = reinterpret_cast<const void*>(map.words[1]);
  shape.element = static_cast<Element>(map.words[2] & 0xff);
  shape.dimensions = static_cast<int>(map.words[2] >> 8 & 0xff);
  shape.swizzle = static_cast<device::Swizzle>(map.words[2] >> 16 & 0xff);
  for (int d = 0; d < 5; ++d) {
    shape.box[d] = static_cast<int>(map.words[3 + d / 4] >> (16 * (d % 4)) & 0xffff);
    shape.sizes[d] = static_cast<int64_t>(map.words[5 + d]);
    shape.strides[d] = d == 0 ? 0 : static_cast<int64_t>(map.words[9 + d]);
  }
  return true;
}

size_t box_bytes(const device::TensorMapShape& shape) {
  size_t bytes = element_bytes(shape.element);
  for (int d = 0; d < shape.dimensions; ++d) bytes *= static_cast<size_t>(shape.box[d]);
  return bytes;
}

size_t swizzled(size_t offset, device::Swizzle swizzle) {
  const int width = device::swizzle_width(swizzle);
  if (width == 0) return offset;
  const size_t pieces = static_cast<size_t>(width) / 16;
  return offset ^ (offset / 128 % pieces) * 16;
}

BoxRows::BoxRows(const device::TensorMapShape& shape, const int* at) : shape_(shape), at_(at) {
  for (int d = 1; d < shape.dimensions; ++d) rows_ *= static_cast<size_t>(shape.box[d]);
}

bool BoxRows::place(BoxRow& row) const {
  const int64_t item = static_cast<int64_t>(element_bytes(shape_.element));
  const int64_t first = std::max<int64_t>(0, -static_cast<int64_t>(at_[0]));
  const int64_t last = std::min<int64_t>(shape_.box[0], shape_.sizes[0] - at_[0]);
  if (first >= last) return false;
  int64_t address = reinterpret_cast<int64_t>(shape_.base) + (at_[0] + first) * item;
  for (int d = 1; d < shape_.dimensions; ++d) {
    const int64_t index = static_cast<int64_t>(at_[d]) + index_[d];
    if (index < 0 || index >= shape_.sizes[d]) return false;
    address += index * shape_.strides[d];
  }
  row.offset = row_ * static_cast<size_t>(shape_.box[0] * item) + static_cast<size_t>(first * item);
  row.address = static_cast<uintptr_t>(address);
  row.bytes = static_cast<uint32_t>((last - first) * item);
  return true;
}

bool BoxRows::next(BoxRow& row) {
  while (row_ < rows_) {
    const bool inside = place(row);
    ++row_;
    for (int d = 1; d < shape_.dimensions && ++index_[d] == shape_.box[d]; ++d) index_[d] = 0;
    if (inside) return true;
  }
  return false;
}

}  // namespace simt
}  // namespace igf
