#include "simt/accounting.h"

#include <algorithm>
#include <array>
#include <bit>

#include "simt/buffers.h"

namespace igf::simt {

namespace {

constexpr int kLanes = 32;
constexpr uint64_t kSectorBytes = 32;
constexpr uint64_t kBanks = 32;
constexpr uint64_t kBankBytes = 4;

uint64_t divided_up(uint64_t numerator, uint64_t denominator) { return (numerator + denominator - 1) / denominator; }

// How many different units of kUnit bytes the ranges touch; `ranges` is sorted by its first number.
uint64_t distinct_units(const std::vector<std::pair<uint64_t, uint64_t>>& ranges, uint64_t unit) {
  uint64_t count = 0;
  uint64_t next = 0;  // the first unit that has not been counted
  for (const auto& [begin, end] : ranges) {
    const uint64_t first = std::max(begin / unit, next);
    const uint64_t last = divided_up(end, unit);
    if (last > first) count += last - first, next = last;
  }
  return count;
}

}  // namespace

// One warp access.
struct Accounting::Group {
  uint32_t lanes = 0;
  std::array<uintptr_t, kLanes> addresses;
  std::array<int32_t, kLanes> buffers;
  std::array<uint16_t, kLanes> bytes;
};

// What a warp's lanes have done at one place.
struct Accounting::Visits {
  std::array<uint32_t, kLanes> count{};  // by lane
  uint32_t first = 0;                    // the visit that groups[0] belongs to
  uint32_t open = 0;                     // groups that wait for lanes
  std::vector<Group> groups;
};

void Accounting::begin_launch(const std::string& kernel, int64_t grid_x, int64_t grid_y, int threads_x, int threads_y) {
  now_ = {kernel, {grid_x, grid_y}, {threads_x, threads_y}, {}, {}, 0, 0};
  threads_ = static_cast<uint32_t>(threads_x * threads_y);
  traffic_.clear();
  touched_.clear();
  running_.clear();
  known_places_.clear();
  for (const Buffer& buffer : buffers().all()) {
    traffic_.push_back({buffer.name, buffer.begin, buffer.bytes(), {}, {}, {}});
    touched_.emplace_back(buffer.bytes(), 0);
  }
}

uint32_t Accounting::place_of(const LaneAccess& access) {
  const uint64_t mixed = (reinterpret_cast<uint64_t>(access.place.where) ^ (static_cast<uint64_t>(access.place.line) << 40)) * 4 +
                         static_cast<uint64_t>(access.direction);
  std::vector<uint32_t>& candidates = known_places_[mixed];
  for (const uint32_t candidate : candidates) {
    const PlaceTraffic& known = now_.places[candidate];
    if (known.place == access.place && known.space == access.space && known.direction == access.direction) return candidate;
  }
  candidates.push_back(static_cast<uint32_t>(now_.places.size()));
  now_.places.push_back({access.place, access.space, access.direction});
  return candidates.back();
}

void Accounting::access(const LaneAccess& access) {
  const uint32_t place = place_of(access);
  Block& block = running_[access.block];
  if (block.empty()) block.resize(divided_up(threads_, kLanes));
  const uint32_t number = access.thread / kLanes, lane = access.thread % kLanes;
  Warp& warp = block[number];
  if (warp.size() <= place) warp.resize(place + 1);
  if (warp[place] == nullptr) warp[place] = std::make_unique<Visits>();
  Visits& visits = *warp[place];
  const uint32_t turn = visits.count[lane]++ - visits.first;
  if (turn >= visits.groups.size()) visits.groups.resize(turn + 1), ++visits.open;
  Group& group = visits.groups[turn];
  group.lanes |= 1u << lane;
  group.addresses[lane] = access.address;
  group.buffers[lane] = access.buffer;
  group.bytes[lane] = static_cast<uint16_t>(access.bytes);
  const uint32_t present = std::min<uint32_t>(kLanes, threads_ - number * kLanes);
  if (static_cast<uint32_t>(std::popcount(group.lanes)) != present) return;
  settle(group, place);
  group.lanes = 0;
  if (--visits.open == 0) {
    visits.first += static_cast<uint32_t>(visits.groups.size());
    visits.groups.clear();
  }
}

void Accounting::block_ended(uint32_t block) {
  const auto found = running_.find(block);
  if (found == running_.end()) return;
  for (const Warp& warp : found->second) {
    for (uint32_t place = 0; place < warp.size(); ++place) {
      if (warp[place] == nullptr) continue;
      for (const Group& group : warp[place]->groups) {
        if (group.lanes != 0) settle(group, place);
      }
    }
  }
  running_.erase(found);
}

void Accounting::settle(const Group& group, uint32_t place) {
  PlaceTraffic& traffic = now_.places[place];
  ++traffic.accesses;
  if (traffic.space == Space::kGlobal) {
    settle_global(group, traffic);
  } else {
    settle_shared(group, traffic);
  }
}

void Accounting::settle_global(const Group& group, PlaceTraffic& place) {
  uint32_t left = group.lanes;
  while (left != 0) {  // a buffer at a time
    const int buffer = group.buffers[static_cast<size_t>(std::countr_zero(left))];
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (((left >> lane) & 1) == 0 || group.buffers[lane] != buffer) continue;
      left &= ~(1u << lane);
      ranges.emplace_back(group.addresses[lane], group.addresses[lane] + group.bytes[lane]);
      touch(group, lane, place.direction);
    }
    std::sort(ranges.begin(), ranges.end());
    const uint64_t bytes = distinct_units(ranges, 1);
    const uint64_t sectors = distinct_units(ranges, kSectorBytes);
    BufferTraffic& traffic = traffic_[static_cast<size_t>(buffer)];
    Flow& flow = place.direction == Direction::kLoad    ? traffic.loads
                 : place.direction == Direction::kStore ? traffic.stores
                                                        : traffic.atomics;
    flow.bytes += bytes;
    flow.sectors += sectors;
    flow.ideal_sectors += divided_up(bytes, kSectorBytes);
    place.bytes += bytes;
    place.cost += sectors;
    place.ideal += divided_up(bytes, kSectorBytes);
  }
}

void Accounting::touch(const Group& group, int lane, Direction direction) {
  const size_t buffer = static_cast<size_t>(group.buffers[lane]);
  const uint8_t bit = static_cast<uint8_t>(1u << static_cast<int>(direction));
  const uint64_t offset = group.addresses[lane] - traffic_[buffer].begin;
  for (uint64_t byte = offset; byte < offset + group.bytes[lane]; ++byte) touched_[buffer][byte] |= bit;
}

void Accounting::settle_shared(const Group& group, PlaceTraffic& place) {
  uint32_t widest = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((group.lanes >> lane) & 1) widest = std::max<uint32_t>(widest, group.bytes[lane]);
  }
  const int together = widest <= 4 ? 32 : widest <= 8 ? 16 : 8;
  for (int first = 0; first < kLanes; first += together) {
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (int lane = first; lane < first + together; ++lane) {
      if (((group.lanes >> lane) & 1) == 0) continue;
      ranges.emplace_back(group.addresses[lane], group.addresses[lane] + group.bytes[lane]);
    }
    if (ranges.empty()) continue;
    std::sort(ranges.begin(), ranges.end());
    std::array<uint64_t, kBanks> words{};  // by bank: different words asked of it
    uint64_t next = 0;
    for (const auto& [begin, end] : ranges) {
      for (uint64_t word = std::max(begin / kBankBytes, next); word < divided_up(end, kBankBytes); ++word) {
        ++words[word % kBanks];
        next = word + 1;
      }
    }
    place.bytes += distinct_units(ranges, 1);
    place.cost += *std::max_element(words.begin(), words.end());
    place.ideal += divided_up(distinct_units(ranges, kBankBytes), kBanks);
  }
}

void Accounting::end_launch() {
  while (!running_.empty()) block_ended(running_.begin()->first);
  for (size_t buffer = 0; buffer < traffic_.size(); ++buffer) {
    BufferTraffic& traffic = traffic_[buffer];
    for (const uint8_t bits : touched_[buffer]) {
      traffic.loads.unique_bytes += bits & 1;
      traffic.stores.unique_bytes += (bits >> 1) & 1;
      traffic.atomics.unique_bytes += (bits >> 2) & 1;
    }
    if (traffic.loads.bytes + traffic.stores.bytes + traffic.atomics.bytes != 0) now_.buffers.push_back(traffic);
  }
  for (const PlaceTraffic& place : now_.places) {
    if (place.space != Space::kShared) continue;
    now_.wavefronts += place.cost;
    now_.ideal_wavefronts += place.ideal;
  }
  launches_.push_back(std::move(now_));
}

Accounting& accounting() {
  static Accounting instance;
  return instance;
}

}  // namespace igf::simt
