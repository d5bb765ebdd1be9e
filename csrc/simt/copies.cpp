#include "simt/copies.h"

#include <cstring>

namespace igf::simt {
namespace {

constexpr size_t kWord = 4;  // every copy begins and ends on 4 bytes

void* at(uintptr_t address) { return reinterpret_cast<void*>(address); }

void arrive(const Copy& copy) {
  std::memcpy(at(copy.shared), at(copy.global), copy.source_bytes);
  std::memset(at(copy.shared + copy.source_bytes), 0, copy.bytes - copy.source_bytes);
}

}  // namespace

void Copies::begin(uintptr_t shared, int threads) {
  // Most kernels copy nothing asynchronously, and those that do leave nothing behind unless they fail.
  if (count_ != 0 || threads != threads_) {
    owner_.clear();
    slots_.clear();
    free_.clear();
    issuers_.clear();
  }
  low_ = shared;
  threads_ = threads;
  count_ = 0;
}

void Copies::issue(Copy copy, bool at_once) {
  const size_t words = (copy.shared - low_ + copy.bytes) / kWord;
  if (owner_.size() < words) owner_.resize(words);
  uint32_t slot = static_cast<uint32_t>(slots_.size());
  if (free_.empty()) {
    slots_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  std::memcpy(copy.source, at(copy.global), copy.source_bytes);
  if (at_once) {
    arrive(copy);
  } else {
    std::memset(at(copy.shared), 0xff, copy.bytes);
  }
  for (size_t word = 0; word < copy.bytes / kWord; ++word) owner_[(copy.shared - low_) / kWord + word] = slot + 1;
  slots_[slot] = copy;
  ++count_;
  Issuer& issuer = issuer_of(copy.thread);
  issuer.pending.push_back({slot, issuer.group});
}

Copies::Issuer& Copies::issuer_of(int thread) {
  issuers_.resize(static_cast<size_t>(threads_));
  return issuers_[static_cast<size_t>(thread)];
}

void Copies::commit(int thread) { ++issuer_of(thread).group; }

const std::vector<Copy>& Copies::end(int thread, int pending) {
  const uint64_t groups = issuer_of(thread).group;  // committed so far
  const uint64_t kept = static_cast<uint64_t>(pending);
  return end_before(thread, groups > kept ? groups - kept : 0);
}

const std::vector<Copy>& Copies::end_all(int thread) {
  return end_before(thread, issuer_of(thread).group + 1);
}

const std::vector<Copy>& Copies::end_before(int thread, uint64_t group) {
  std::vector<Pending>& pending = issuer_of(thread).pending;
  ended_.clear();
  changed_ = -1;
  while (ended_.size() < pending.size() && pending[ended_.size()].group < group) {
    const uint32_t slot = pending[ended_.size()].slot;
    const Copy& copy = slots_[slot];
    if (std::memcmp(copy.source, at(copy.global), copy.source_bytes) == 0) {
      arrive(copy);
    } else if (changed_ < 0) {
      changed_ = static_cast<int>(ended_.size());
    }
    for (size_t word = 0; word < copy.bytes / kWord; ++word) owner_[(copy.shared - low_) / kWord + word] = 0;
    free_.push_back(slot);
    --count_;
    ended_.push_back(copy);
  }
  pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(ended_.size()));
  return ended_;
}

const Copy* Copies::first_of(int thread) const {
  if (count_ == 0) return nullptr;
  const std::vector<Pending>& pending = issuers_[static_cast<size_t>(thread)].pending;
  return pending.empty() ? nullptr : &slots_[pending.front().slot];
}

const Copy* Copies::find(uintptr_t address, size_t bytes) const {
  if (bytes == 0 || address + bytes <= low_) return nullptr;
  const size_t first = address < low_ ? 0 : (address - low_) / kWord;
  for (size_t word = first; word < owner_.size() && low_ + word * kWord < address + bytes; ++word) {
    if (owner_[word] != 0) return &slots_[owner_[word] - 1];
  }
  return nullptr;
}

}  // namespace igf::simt
