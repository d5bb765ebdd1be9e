#include "simt/buffers.h"

#include <algorithm>
#include <cstring>

namespace igf::simt {

void Buffers::clear() {
  all_.clear();
  names_.clear();
  last_ = 0;
  fresh_ = unnamed_ = 0;
}

void Buffers::name(uintptr_t begin, size_t bytes, const std::string& name) {
  if (bytes != 0) names_.push_back({begin, begin + bytes, name});
}

void Buffers::name_copy(uintptr_t copy, size_t bytes, uintptr_t original) {
  const std::string taken = name_of(original, 1);
  allocated(copy, bytes, false);
  names_.back().name = taken;
  --fresh_;
}

void Buffers::allocated(uintptr_t begin, size_t bytes, bool fill) {
  if (bytes == 0) return;
  const uintptr_t end = begin + bytes;
  if (fill) std::memset(reinterpret_cast<void*>(begin), 0xFF, bytes);
  const auto stale = [=](const auto& other) { return other.begin < end && begin < other.end; };
  std::erase_if(all_, stale);
  std::erase_if(names_, stale);
  names_.push_back({begin, end, "new " + std::to_string(fresh_++)});
}

void Buffers::add(uintptr_t begin, size_t bytes, size_t item_bytes, bool read_only) {
  if (bytes == 0) return;
  Buffer added{begin, begin + bytes, item_bytes, read_only, name_of(begin, bytes)};
  // Parts of one argument (the columns of q, k and v in one matrix) may be handed out one by one.
  for (const Buffer& other : all_) {
    if (other.begin >= added.end || added.begin >= other.end) continue;
    added.begin = std::min(added.begin, other.begin);
    added.end = std::max(added.end, other.end);
    added.item_bytes = std::min(added.item_bytes, other.item_bytes);
    added.read_only = added.read_only && other.read_only;
    if (other.name != added.name) added.name = other.name + "+" + added.name;
  }
  std::erase_if(all_, [&](const Buffer& other) { return other.begin < added.end && added.begin < other.end; });
  const auto place = std::upper_bound(all_.begin(), all_.end(), added.begin,
                                      [](uintptr_t address, const Buffer& b) { return address < b.begin; });
  all_.insert(place, std::move(added));
}

std::string Buffers::name_of(uintptr_t begin, size_t bytes) {
  for (const Name& known : names_) {
    if (known.begin <= begin && begin < known.end) return known.name;
  }
  names_.push_back({begin, begin + bytes, "unnamed " + std::to_string(unnamed_++)});
  return names_.back().name;
}

int Buffers::search(uintptr_t address) {
  const auto after = std::upper_bound(all_.begin(), all_.end(), address,
                                      [](uintptr_t place, const Buffer& b) { return place < b.begin; });
  if (after == all_.begin() || address >= std::prev(after)->end) return -1;
  last_ = static_cast<size_t>(std::prev(after) - all_.begin());
  return static_cast<int>(last_);
}

std::string Buffers::nearest(uintptr_t address) const {
  const Buffer* best = nullptr;
  uintptr_t distance = 0;
  for (const Buffer& buffer : all_) {
    const uintptr_t away = address < buffer.begin ? buffer.begin - address : address - (buffer.end - 1);
    if (best == nullptr || away < distance) best = &buffer, distance = away;
  }
  if (best == nullptr) return "no buffer was given to the kernel";
  const std::string described = best->name + " [" + std::to_string(best->bytes() / best->item_bytes) + " x " +
                                std::to_string(best->item_bytes) + " bytes]";
  if (address < best->begin) return std::to_string(distance) + " bytes before the first of " + described;
  const uintptr_t element = (address - best->begin) / best->item_bytes;
  return "element " + std::to_string(element) + ", " + std::to_string(distance - 1) +
         " bytes past the end, after the last of " + described;
}

Buffers& buffers() {
  static Buffers instance;
  return instance;
}

}  // namespace igf::simt
