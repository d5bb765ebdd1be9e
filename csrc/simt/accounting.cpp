#include "simt/accounting.h"

#include <algorithm>
#include <bit>

#include "simt/buffers.h"

namespace igf::simt {

namespace {

constexpr size_t kLanes = 32;
constexpr uint64_t kSectorBytes = 32;
constexpr uint64_t kBanks = 32;
constexpr uint64_t kBankBytes = 4;

// Addresses that lanes asked for: [first, second), in a fixed array because observers run on a fiber's small stack.
struct Ranges {
  std::array<std::pair<uint64_t, uint64_t>, kLanes> items;
  size_t count = 0;

  void add(uint64_t begin, uint64_t bytes) { items[count++] = {begin, begin + bytes}; }
  void sort() { std::sort(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(count)); }
};

uint64_t divided_up(uint64_t numerator, uint64_t denominator) { return (numerator + denominator - 1) / denominator; }

// Calls body(first, last) for the runs of units of `unit` bytes that sorted ranges touch, each unit once.
template <typename Body>
void for_each_run(const Ranges& ranges, uint64_t unit, const Body& body) {
  uint64_t next = 0;  // the first unit that has not been seen
  for (size_t i = 0; i < ranges.count; ++i) {
    const uint64_t first = std::max(ranges.items[i].first / unit, next);
    const uint64_t last = divided_up(ranges.items[i].second, unit);
    if (last > first) body(first, last), next = last;
  }
}

uint64_t distinct_units(const Ranges& ranges, uint64_t unit) {
  uint64_t count = 0;
  for_each_run(ranges, unit, [&](uint64_t first, uint64_t last) { count += last - first; });
  return count;
}

Direction direction_of(Word word) {
  switch (word) {
    case Word::kRawWrite:
    case Word::kStore:
    case Word::kStoreOnce:
    case Word::kStoreMatrix:
    case Word::kStoreRelease:
    case Word::kStoreTile: return Direction::kStore;
    case Word::kAtomicAdd:
    case Word::kAtomicMax:
    case Word::kAtomicMin:
    case Word::kAtomicExchange:
    case Word::kAtomicOr:
    case Word::kAddAcquireRelease:
    case Word::kAddRelease:
    case Word::kAddTile:
    case Word::kBulkAdd:
    case Word::kAddFour: return Direction::kAtomic;
    default: return Direction::kLoad;
  }
}

}  // namespace

// One warp access.
struct Accounting::Group {
  uint32_t lanes = 0;
  std::array<uintptr_t, kLanes> addresses;
  std::array<int32_t, kLanes> buffers;
  std::array<uint16_t, kLanes> bytes;

  bool has(size_t lane) const { return ((lanes >> lane) & 1) != 0; }
};

// What a warp's lanes have done at one place.
struct Accounting::Visits {
  std::array<uint32_t, kLanes> count{};  // by lane
  uint32_t first = 0;                    // the visit that groups[0] belongs to
  uint32_t open = 0;                     // groups that wait for lanes
  std::vector<Group> groups;
};

Accounting::Accounting() = default;
Accounting::~Accounting() = default;

void Accounting::launch_begins(const LaunchFacts& launch) {
  now_ = {};
  now_.kernel = launch.kernel;
  threads_ = static_cast<uint32_t>(launch.threads_x * launch.threads_y);
  traffic_.clear();
  touched_.clear();
  known_places_.clear();
  warps_.clear();
  warps_.resize(static_cast<size_t>(launch.blocks_x * launch.blocks_y) * divided_up(threads_, kLanes));
  for (const Buffer& buffer : buffers().all()) {
    traffic_.push_back({buffer.name, buffer.begin, buffer.bytes()});
    touched_.emplace_back(buffer.bytes(), 0);
  }
}

uint32_t Accounting::place_of(const Access& access) {
  const Direction direction = direction_of(access.word);
  const uint64_t mixed = (reinterpret_cast<uint64_t>(access.site.file) ^ access.pc) * 4 + static_cast<uint64_t>(direction) +
                         (static_cast<uint64_t>(access.site.line) << 48);
  std::vector<uint32_t>& candidates = known_places_[mixed];
  for (const uint32_t candidate : candidates) {
    const PlaceTraffic& known = now_.places[candidate];
    if (known.site.file == access.site.file && known.site.line == access.site.line && known.pc == access.pc &&
        known.space == access.space && known.direction == direction) {
      return candidate;
    }
  }
  candidates.push_back(static_cast<uint32_t>(now_.places.size()));
  now_.places.push_back({access.site, access.pc, access.space, direction});
  return candidates.back();
}

void Accounting::accessed(const Who& who, const Access& access) {
  const uint32_t place = place_of(access);
  const uint32_t warps = static_cast<uint32_t>(divided_up(threads_, kLanes));
  Warp& warp = warps_[static_cast<size_t>(who.block) * warps + static_cast<size_t>(who.warp)];
  if (warp.size() <= place) warp.resize(place + 1);
  if (warp[place] == nullptr) warp[place] = std::make_unique<Visits>();
  Visits& visits = *warp[place];
  const size_t lane = static_cast<size_t>(who.lane);
  const uint32_t turn = visits.count[lane]++ - visits.first;  // at most groups.size(): every turn before has been opened
  if (turn == visits.groups.size()) visits.groups.emplace_back(), ++visits.open;
  Group& group = visits.groups[turn];
  group.lanes |= 1u << lane;
  group.addresses[lane] = access.address;
  group.buffers[lane] = access.buffer == nullptr ? -1 : static_cast<int32_t>(access.buffer - buffers().all().data());
  group.bytes[lane] = static_cast<uint16_t>(access.bytes);
  const uint32_t present = std::min<uint32_t>(kLanes, threads_ - static_cast<uint32_t>(who.warp) * kLanes);
  if (static_cast<uint32_t>(std::popcount(group.lanes)) != present) return;
  settle(group, now_.places[place]);
  group.lanes = 0;
  if (--visits.open == 0) {
    visits.first += static_cast<uint32_t>(visits.groups.size());
    visits.groups.clear();
  }
}

void Accounting::moved(const Who&, const Access& access) {
  PlaceTraffic& place = now_.places[place_of(access)];
  const size_t buffer = static_cast<size_t>(access.buffer - buffers().all().data());
  const uint64_t first = access.address / kSectorBytes;
  const uint64_t sectors = divided_up(access.address + access.bytes, kSectorBytes) - first;
  const uint64_t ideal = divided_up(access.bytes, kSectorBytes);
  Flow& flow = traffic_[buffer].flows[static_cast<size_t>(place.direction)];
  flow.bytes += access.bytes;
  flow.sectors += sectors;
  flow.ideal_sectors += ideal;
  ++place.accesses;
  place.bytes += access.bytes;
  place.cost += sectors;
  place.ideal += ideal;
  const uint8_t bit = static_cast<uint8_t>(1u << static_cast<int>(place.direction));
  const uint64_t offset = access.address - traffic_[buffer].begin;
  for (uint64_t byte = offset; byte < offset + access.bytes; ++byte) touched_[buffer][byte] |= bit;
}

void Accounting::said(const Who&, Word word, Site) { ++now_.said[static_cast<size_t>(word)]; }

void Accounting::settle(const Group& group, PlaceTraffic& place) {
  ++place.accesses;
  if (place.space == Space::kGlobal) {
    settle_global(group, place);
  } else {
    settle_shared(group, place);
  }
}

void Accounting::settle_global(const Group& group, PlaceTraffic& place) {
  uint32_t left = group.lanes;
  while (left != 0) {  // a buffer at a time
    const int32_t buffer = group.buffers[static_cast<size_t>(std::countr_zero(left))];
    Ranges ranges;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      if (((left >> lane) & 1) == 0 || group.buffers[lane] != buffer) continue;
      left &= ~(1u << lane);
      ranges.add(group.addresses[lane], group.bytes[lane]);
      touch(group, lane, place.direction);
    }
    ranges.sort();
    const uint64_t bytes = distinct_units(ranges, 1);
    const uint64_t sectors = distinct_units(ranges, kSectorBytes);
    Flow& flow = traffic_[static_cast<size_t>(buffer)].flows[static_cast<size_t>(place.direction)];
    flow.bytes += bytes;
    flow.sectors += sectors;
    flow.ideal_sectors += divided_up(bytes, kSectorBytes);
    place.bytes += bytes;
    place.cost += sectors;
    place.ideal += divided_up(bytes, kSectorBytes);
  }
}

void Accounting::touch(const Group& group, size_t lane, Direction direction) {
  const size_t buffer = static_cast<size_t>(group.buffers[lane]);
  const uint8_t bit = static_cast<uint8_t>(1u << static_cast<int>(direction));
  const uint64_t offset = group.addresses[lane] - traffic_[buffer].begin;
  for (uint64_t byte = offset; byte < offset + group.bytes[lane]; ++byte) touched_[buffer][byte] |= bit;
}

void Accounting::settle_shared(const Group& group, PlaceTraffic& place) {
  uint32_t widest = 0;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    if (group.has(lane)) widest = std::max<uint32_t>(widest, group.bytes[lane]);
  }
  const size_t together = widest <= 4 ? 32 : widest <= 8 ? 16 : 8;
  for (size_t first = 0; first < kLanes; first += together) {
    Ranges ranges;
    for (size_t lane = first; lane < first + together; ++lane) {
      if (group.has(lane)) ranges.add(group.addresses[lane], group.bytes[lane]);
    }
    if (ranges.count == 0) continue;
    ranges.sort();
    std::array<uint32_t, kBanks> words{};  // by bank: different words asked of it
    for_each_run(ranges, kBankBytes, [&](uint64_t begin, uint64_t end) {
      for (uint64_t word = begin; word < end; ++word) ++words[word % kBanks];
    });
    place.bytes += distinct_units(ranges, 1);
    place.cost += *std::max_element(words.begin(), words.end());
    place.ideal += divided_up(distinct_units(ranges, kBankBytes), kBanks);
  }
}

void Accounting::launch_ends(const LaunchFacts& launch, const char* fault) {
  if (fault != nullptr) return;
  for (const Warp& warp : warps_) {
    for (size_t place = 0; place < warp.size(); ++place) {
      if (warp[place] == nullptr) continue;
      for (const Group& group : warp[place]->groups) {
        if (group.lanes != 0) settle(group, now_.places[place]);
      }
    }
  }
  for (size_t buffer = 0; buffer < traffic_.size(); ++buffer) {
    std::array<Flow, 3>& flows = traffic_[buffer].flows;
    for (const uint8_t bits : touched_[buffer]) {
      for (size_t direction = 0; direction < flows.size(); ++direction) {
        flows[direction].unique_bytes += (bits >> direction) & 1;
      }
    }
    if (flows[0].bytes + flows[1].bytes + flows[2].bytes != 0) now_.buffers.push_back(traffic_[buffer]);
  }
  for (const PlaceTraffic& place : now_.places) {
    if (place.space != Space::kShared) continue;
    now_.wavefronts += place.cost;
    now_.ideal_wavefronts += place.ideal;
  }
  now_.facts = launch;
  launches_.push_back(std::move(now_));
}

Accounting& accounting() {
  static Accounting instance;
  return instance;
}

}  // namespace igf::simt
