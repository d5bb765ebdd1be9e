#include "simt/mutation.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "simt/buffers.h"

namespace igf::simt {

namespace {

constexpr std::array<const char*, kMutations> kNames = {
    "none",        "drop_barrier", "drop_warp_barrier", "drop_fence",   "drop_wait",   "drop_arrive", "drop_store",
    "drop_atomic", "shift_load",   "shift_store",       "wrong_parity", "wrong_bytes", "shuffle_wrong_lane",
    "drop_commit", "drop_product", "shift_tile",        "wrong_stride"};

}  // namespace

const char* name_of(Mutation kind) { return kNames[static_cast<size_t>(kind)]; }

Mutation mutation_called(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  return found == kNames.end() ? Mutation::kNone : static_cast<Mutation>(found - kNames.begin());
}

Mutation drop_of(Word word) {
  switch (word) {
    case Word::kBlockBarrier:
    case Word::kBlockBarrierOr:
    case Word::kBlockBarrierCount:
    case Word::kNamedBarrierSync:
    case Word::kNamedBarrierArrive: return Mutation::kDropBarrier;
    case Word::kWarpBarrier: return Mutation::kDropWarpBarrier;
    case Word::kBlockFence:
    case Word::kDeviceFence:
    case Word::kMbarrierInitFence:
    case Word::kProxyFenceShared:
    case Word::kProxyFenceGlobal:
    case Word::kWgmmaFence: return Mutation::kDropFence;
    case Word::kCopyWait:
    case Word::kMbarrierWait:
    case Word::kBulkWait:
    case Word::kBulkWaitRead:
    case Word::kWgmmaWait: return Mutation::kDropWait;
    case Word::kMbarrierArrive:
    case Word::kMbarrierArriveExpecting: return Mutation::kDropArrive;
    case Word::kWgmmaCommit: return Mutation::kDropCommit;
    case Word::kWgmma: return Mutation::kDropProduct;
    case Word::kStore:
    case Word::kStoreOnce:
    case Word::kStoreMatrix:
    case Word::kStoreRelease:
    case Word::kLoadTile:
    case Word::kStoreTile:
    case Word::kBulkLoad:
    case Word::kCopyAsync: return Mutation::kDropStore;
    case Word::kAtomicAdd:
    case Word::kAtomicMax:
    case Word::kAtomicMin:
    case Word::kAtomicExchange:
    case Word::kAtomicOr:
    case Word::kAddAcquireRelease:
    case Word::kAddRelease:
    case Word::kAddTile:
    case Word::kBulkAdd:
    case Word::kAddFour: return Mutation::kDropAtomic;
    default: return Mutation::kNone;
  }
}

Mutation shift_of(Word word) {
  switch (word) {
    case Word::kLoad:
    case Word::kLoadOnce:
    case Word::kLoadSharedByBlocks:
    case Word::kLoadAcquire:
    case Word::kLoadMatrix:
    case Word::kLoadTile:
    case Word::kCopyAsync: return Mutation::kShiftLoad;
    case Word::kStoreTile:
    case Word::kAddTile:
    case Word::kAddFour:
    case Word::kStore:
    case Word::kStoreOnce:
    case Word::kStoreMatrix:
    case Word::kStoreRelease: return Mutation::kShiftStore;
    case Word::kWgmmaTile: return Mutation::kShiftTile;
    default: return Mutation::kNone;
  }
}

void SiteMutator::choose(Mutation kind, const std::string& place) {
  const size_t colon = place.rfind(':');
  chosen_ = kind;
  file_ = place.substr(0, colon);
  line_ = colon == std::string::npos ? 0 : std::atoi(place.c_str() + colon + 1);
  applied_ = 0;
}

void SiteMutator::record(bool on) {
  recording_ = on;
  seen_.clear();
}

bool SiteMutator::dropped(const Who&, Word word, Site site) {
  const Mutation kind = drop_of(word);
  if (kind == Mutation::kNone || !strikes(kind, site)) return false;
  ++applied_;
  return true;
}

uintptr_t SiteMutator::address(const Who&, const Access& access) {
  const Mutation kind = shift_of(access.word);
  if (kind == Mutation::kNone || !strikes(kind, access.site)) return access.address;
  uintptr_t moved = access.address;
  const int index = buffers().find(access.address);
  if (access.space == Space::kShared) {
    moved ^= access.bytes;  // the other one of a pair
  } else if (index >= 0 && access.address + 2 * access.bytes <= buffers()[index].end) {
    moved += access.bytes;
  } else if (index >= 0 && access.address >= buffers()[index].begin + access.bytes) {
    moved -= access.bytes;
  }
  if (moved != access.address) ++applied_;
  return moved;
}

int SiteMutator::operand(const Who&, Word word, Site site, int value) {
  constexpr int kFewerBytes = 16;
  constexpr int kPattern = 1024;  // of rows of 128 bytes; of narrower ones it is some patterns
  const Mutation kind = word == Word::kMbarrierWait              ? Mutation::kWrongParity
                        : word == Word::kMbarrierArriveExpecting ? Mutation::kWrongBytes
                        : word == Word::kWgmmaTile               ? Mutation::kWrongStride
                                                                 : shift_of(word);
  if (kind == Mutation::kNone || !strikes(kind, site)) return value;
  ++applied_;
  switch (kind) {
    case Mutation::kWrongParity: return value ^ 1;
    case Mutation::kWrongBytes: return value < kFewerBytes ? value + kFewerBytes : value - kFewerBytes;
    case Mutation::kWrongStride: return value + kPattern;
    default: return value + 1;
  }
}

int SiteMutator::source_lane(const Who&, Word, Site site, int source, uint32_t lanes) {
  if (!strikes(Mutation::kShuffleWrongLane, site)) return source;
  const uint32_t others = lanes & ~(1u << source);
  if (others == 0) return source;
  ++applied_;
  const int neighbour = source ^ 1;
  return ((others >> neighbour) & 1) != 0 ? neighbour : std::countr_zero(others);
}

bool SiteMutator::strikes(Mutation kind, Site site) {
  if (site.file == nullptr) return false;  // a raw access
  if (recording_) note(kind, site);
  return kind == chosen_ && site.line == line_ && is_chosen(site.file);
}

bool SiteMutator::is_chosen(const char* file) const {
  const std::string_view said = file;
  if (!said.ends_with(file_)) return false;
  return said.size() == file_.size() || said[said.size() - file_.size() - 1] == '/';
}

void SiteMutator::note(Mutation kind, Site site) {
  const size_t index = static_cast<size_t>(site.line) * kMutations + static_cast<size_t>(kind);
  if (index >= seen_.size()) seen_.resize(index + 1);
  for (Visits& visits : seen_[index]) {
    if (visits.file == site.file) {
      ++visits.count;
      return;
    }
  }
  seen_[index].push_back({site.file, 1});
}

std::vector<SiteMutator::Seen> SiteMutator::sites() const {
  std::vector<Seen> all;
  for (size_t index = 0; index < seen_.size(); ++index) {
    for (const Visits& visits : seen_[index]) {
      const Mutation kind = static_cast<Mutation>(index % kMutations);
      const std::string place = std::string(visits.file) + ":" + std::to_string(index / kMutations);
      const auto same = [&](const Seen& other) { return other.kind == kind && other.place == place; };
      const auto found = std::find_if(all.begin(), all.end(), same);  // one header, compiled into several files
      if (found == all.end()) {
        all.push_back({kind, place, visits.count});
      } else {
        found->visits += visits.count;
      }
    }
  }
  return all;
}

SiteMutator& site_mutator() {
  static SiteMutator instance;
  return instance;
}

}  // namespace igf::simt
