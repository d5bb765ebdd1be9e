#include "simt/shadow.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "simt/buffers.h"
#include "simt/fault.h"
#include "simt/mbarriers.h"
#include "simt/proxies.h"
#include "simt/race.h"
#include "simt/shadow_cells.h"

namespace igf::simt {
namespace {

// In Mark::clock of bytes that are no thread's: nobody has seen, or will see, that clock.
constexpr uint32_t kNobodysClock = ~0u;
constexpr uint32_t kMany = ~0u;            // in Mark::thread: Mark::clock numbers a set of readers

CellMemory memory;
std::vector<Region> regions;  // by address
size_t last_region = 0;
Cell* shared_cells = nullptr;  // [resident][shared_cells_each]; the arrays' cells, one behind the other
size_t shared_cells_each = 0;
std::vector<std::vector<Readers>> many;  // sets of readers; those not in use are empty
std::vector<uint32_t> unused_sets;

bool is_own_block(uint32_t thread) {
  return thread - turn.first_number < static_cast<uint32_t>(current_launch->rows) * kWarpLanes;
}

// Whether the access has happened before whatever the current thread does now.
template <bool kShared>
bool precedes(uint32_t thread, uint32_t clock) {
  if (thread == turn.number) return true;
  if (is_own_block(thread)) {
    if (clock < turn.base) return true;
  } else if (kShared) {
    return true;  // of a block that had this memory before
  }
  return seen_by_view(turn.thread->clock.seen, thread, clock);
}

void drop_set(Cell& cell) {
  many[cell.other.clock].clear();
  unused_sets.push_back(cell.other.clock);
  cell.other = Mark();
}

// The first of the cell's readers, or changers by atomics, that the access races with.
template <bool kShared>
bool races_with_other(const Cell& cell, Touch kind, Race& race) {
  const auto conflicts = [kind](Where where) {
    const bool atomic = (where & kAtomicMark) != 0;
    return kind == Touch::kWrite || (kind == Touch::kRead ? atomic : !atomic);
  };
  if (cell.other.thread == 0) return false;
  if (cell.other.thread != kMany) {
    race = {cell.other, false};
    return conflicts(cell.other.where) && !precedes<kShared>(cell.other.thread, cell.other.clock);
  }
  for (const Readers& readers : many[cell.other.clock]) {
    if (!conflicts(readers.where)) continue;
    for (uint32_t rest = readers.lanes; rest != 0; rest &= rest - 1) {
      const uint32_t thread = readers.first + static_cast<uint32_t>(std::countr_zero(rest));
      race = {{thread, readers.clock, readers.where}, false};
      if (!precedes<kShared>(thread, readers.clock)) return true;
    }
  }
  return false;
}

void add_to_set(std::vector<Readers>& set, const Mark& mark) {
  const uint32_t lane = (mark.thread - 1) % kWarpLanes;
  const uint32_t first = mark.thread - lane;
  const uint32_t bit = 1u << lane;
  Readers* same = nullptr;
  for (size_t i = 0; i < set.size(); ++i) {
    Readers& readers = set[i];
    if (readers.first != first || ((readers.where ^ mark.where) & kAtomicMark) != 0) continue;
    if (readers.clock == mark.clock) {
      same = &readers;
      readers.lanes |= bit;
      readers.where = mark.where;
    } else {
      readers.lanes &= ~bit;  // the lane's later access stands for its earlier one
    }
  }
  if (same == nullptr) set.push_back({first, bit, mark.clock, mark.where});
  std::erase_if(set, [](const Readers& readers) { return readers.lanes == 0; });
}

// Whether an earlier read, or change by an atomic, need not be kept beside a new mark: whoever is ordered after the new
// one is ordered after it. Of the two kinds one does not stand for the other (an atomic conflicts with reads that a
// read does not conflict with), unless all who can still come are ordered after the earlier one.
template <bool kShared>
bool stands_for(const Mark& mark, uint32_t thread, uint32_t clock, Where where) {
  if (!precedes<kShared>(thread, clock)) return false;
  if (((mark.where ^ where) & kAtomicMark) == 0) return true;
  return kShared && (!is_own_block(thread) || clock < turn.base);
}

template <bool kShared>
bool stands_for_all(const Mark& mark, const std::vector<Readers>& set) {
  for (const Readers& readers : set) {
    for (uint32_t rest = readers.lanes; rest != 0; rest &= rest - 1) {
      const uint32_t thread = readers.first + static_cast<uint32_t>(std::countr_zero(rest));
      if (!stands_for<kShared>(mark, thread, readers.clock, readers.where)) return false;
    }
  }
  return true;
}

// Notes a read, or a change by an atomic.
template <bool kShared>
void note_other(Cell& cell, const Mark& mark) {
  if (cell.other.thread == kMany) {
    std::vector<Readers>& set = many[cell.other.clock];
    if (stands_for_all<kShared>(mark, set)) {
      drop_set(cell);
      cell.other = mark;
    } else {
      add_to_set(set, mark);
    }
    return;
  }
  if (cell.other.thread == 0 ||
      stands_for<kShared>(mark, cell.other.thread, cell.other.clock, cell.other.where)) {
    cell.other = mark;
    return;
  }
  if (unused_sets.empty()) {
    unused_sets.push_back(static_cast<uint32_t>(many.size()));
    many.emplace_back();
  }
  const uint32_t number = unused_sets.back();
  unused_sets.pop_back();
  add_to_set(many[number], cell.other);
  add_to_set(many[number], mark);
  cell.other = {kMany, number, 0};
}

// Notes the access in one cell; true where it races.
template <bool kShared>
bool note(Cell& cell, Touch kind, Where where, Race& race) {
  const Mark mark{turn.number, turn.clock, kind == Touch::kAtomic ? where | kAtomicMark : where};
  if (cell.write.thread != 0 && !precedes<kShared>(cell.write.thread, cell.write.clock)) {
    race = {cell.write, true};
    return true;
  }
  if (races_with_other<kShared>(cell, kind, race)) return true;
  if (kind == Touch::kWrite) {
    if (cell.other.thread == kMany) drop_set(cell);
    cell.other = Mark();
    cell.write = mark;
  } else if (cell.other.thread != mark.thread || cell.other.clock != mark.clock ||
             ((cell.other.where ^ mark.where) & kAtomicMark) != 0) {
    note_other<kShared>(cell, mark);
  }
  return false;
}

std::string doing(Touch kind, uint32_t bytes) {
  return (kind == Touch::kRead ? "reads " : "writes ") + std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

[[noreturn]] void fail_of_bounds(const std::string& rule, uint32_t bytes, Touch kind, Where where, const char* advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " " + doing(kind, bytes), where});
  fault.advice = advice;
  fail(std::move(fault));
}

std::string describe_global(const Region& region, uintptr_t address) {
  const uintptr_t offset = address - region.begin;
  return region.buffer->name + "[" + std::to_string(offset >> region.item_shift) + "]";
}

Cell* cells_of(const SharedArray& array) {
  const size_t resident = static_cast<size_t>(turn.thread->block->first_slot / current_launch->threads);
  return shared_cells + resident * shared_cells_each + array.first_cell;
}

// The array that the bytes lie in.
inline __attribute__((always_inline)) const SharedArray& array_at(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  const size_t offset = address - turn.shared_low;
  const SharedLayout& layout = shared_layout();
  const size_t grain = offset / kSharedGrain;
  const uint8_t number = grain < layout.array_of_grain.size() ? layout.array_of_grain[grain] : 0;
  if (number == 0 || offset + bytes > layout.arrays[number - 1].offset + layout.arrays[number - 1].bytes) {
    fail_of_bounds("out of bounds of shared memory: " + describe_shared(offset, bytes), bytes, kind, where, "");
  }
  return layout.arrays[number - 1];
}

const Buffer* touch_shared(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  const size_t offset = address - turn.shared_low;
  const SharedArray& array = array_at(address, bytes, kind, where);
  if (const Copy* const copy = turn.thread->block->copies.under_way(address, bytes)) {
    fail_of_bytes_under_way(*copy, doing(kind, bytes) + " of " + describe_shared(offset, bytes), where);
  }
  Cell* const cells = cells_of(array);
  const size_t first = (offset - array.offset) >> array.cell_shift;
  const size_t last = (offset + bytes - 1 - array.offset) >> array.cell_shift;
  Race race{};
  for (size_t i = first; i <= last; ++i) {
    if (!note<true>(cells[i], kind, where, race)) continue;
    if (race.mark.clock == kNobodysClock) {
      fail_of_mbarrier_bytes(*turn.thread->block->mbarriers->touched(address, bytes), doing(kind, bytes), where);
    }
    const size_t raced = std::max(offset, array.offset + (i << array.cell_shift));
    fail_of_race(race, bytes, kind, where, describe_shared(raced, std::min<uint32_t>(bytes, offset + bytes - raced)));
  }
  return nullptr;
}

const Region* region_of(uintptr_t address) {
  if (last_region < regions.size() && regions[last_region].begin <= address && address < regions[last_region].end) {
    return &regions[last_region];
  }
  size_t low = 0;
  size_t high = regions.size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (regions[middle].end <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == regions.size() || address < regions[low].begin) return nullptr;
  last_region = low;
  return &regions[low];
}

// Memory that is no buffer: the kernel's arguments and the library's constants may be read.
const Buffer* touch_other(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  const uintptr_t parameters = reinterpret_cast<uintptr_t>(current_launch->parameters);
  const bool is_parameter = address - parameters < current_launch->parameter_bytes;
  if (kind == Touch::kRead && (is_parameter || is_constant(address, bytes))) return nullptr;
  size_t stack = 0;
  if (all_stacks().holds(reinterpret_cast<void*>(address), &stack)) {
    fail_of_bounds("a local variable of another thread, or past the end of the own stack", bytes, kind, where,
                   "threads share values by shared memory or shuffles");
  }
  for (int b = 0; b < current_launch->resident; ++b) {
    if (address - reinterpret_cast<uintptr_t>(resident_block(b).shared.base) < kSharedRoom) {
      fail_of_bounds("shared memory of another block", bytes, kind, where, "");
    }
  }
  if (is_library(address)) {
    fail_of_bounds("a global or static variable", bytes, kind, where,
                   "kernels have none on a GPU: hand it over as an argument");
  }
  fail_of_bounds("out of bounds of global memory: " + buffers().nearest(address), bytes, kind, where,
                 "only memory that the op handed out to the kernel may be touched");
}

}  // namespace

const Buffer* touch(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  if (address - turn.shared_low < turn.shared_bytes) return touch_shared(address, bytes, kind, where);
  const Region* const region = region_of(address);
  if (region == nullptr) return touch_other(address, bytes, kind, where);
  if (address + bytes > region->end) {
    fail_of_bounds("out of bounds of global memory: " + std::to_string(address + bytes - region->end) +
                       " bytes past the end of " + region->buffer->name,
                   bytes, kind, where, "");
  }
  if (region->read_only) {
    if (kind == Touch::kRead) return region->buffer;
    fail_of_bounds("a write to " + describe_global(*region, address) + ", which is read-only", bytes, kind, where,
                   "the op handed it out as const");
  }
  const uintptr_t first = (address - region->begin) >> region->item_shift;
  const uintptr_t last = (address + bytes - 1 - region->begin) >> region->item_shift;
  Race race{};
  for (uintptr_t i = first; i <= last; ++i) {
    if (!note<false>(region->cells[i], kind, where, race)) continue;
    const uintptr_t raced = std::max(address, region->begin + (i << region->item_shift));
    fail_of_race(race, static_cast<uint32_t>(std::min<uintptr_t>(bytes, address + bytes - raced)), kind, where,
                 describe_global(*region, raced));
  }
  return region->buffer;
}

void check_shared_bounds(uintptr_t address, uint32_t bytes, Touch kind, Where where) {
  array_at(address, bytes, kind, where);
}

// Whether one of the cell's changes by atomics is as asked for; `found` is then that one.
template <typename Asked>
bool any_atomic(const Cell& cell, const Asked& asked, Mark& found) {
  if (cell.other.thread == 0) return false;
  if (cell.other.thread != kMany) {
    found = cell.other;
    return (found.where & kAtomicMark) != 0 && asked(found);
  }
  for (const Readers& readers : many[cell.other.clock]) {
    if ((readers.where & kAtomicMark) == 0) continue;
    for (uint32_t rest = readers.lanes; rest != 0; rest &= rest - 1) {
      found = {readers.first + static_cast<uint32_t>(std::countr_zero(rest)), readers.clock, readers.where};
      if (asked(found)) return true;
    }
  }
  return false;
}

void give_to_mbarrier(uintptr_t address, uint32_t bytes, Where where) {
  const SharedArray& array = array_at(address, bytes, Touch::kWrite, where);
  const size_t offset = address - turn.shared_low - array.offset;
  for (size_t i = offset >> array.cell_shift; i <= (offset + bytes - 1) >> array.cell_shift; ++i) {
    cells_of(array)[i].write = {turn.first_number + static_cast<uint32_t>(mbarrier_lane(0)), kNobodysClock, where};
  }
}

const Mark* unfenced_write(uintptr_t address, uint32_t bytes, Where where, bool (*fenced)(const Mark&)) {
  const bool shared = address - turn.shared_low < turn.shared_bytes;
  uintptr_t begin = 0;
  int shift = 0;
  const Cell* cells = nullptr;
  if (shared) {
    const SharedArray& array = array_at(address, bytes, Touch::kRead, where);
    begin = turn.shared_low + array.offset;
    shift = array.cell_shift;
    cells = cells_of(array);
  } else if (const Region* const region = region_of(address); region != nullptr && !region->read_only) {
    begin = region->begin;
    shift = region->item_shift;
    cells = region->cells;
    bytes = static_cast<uint32_t>(std::min<uint64_t>(bytes, region->end - address));
  }
  if (cells == nullptr) return nullptr;
  Mark known{};  // the last that was found fenced
  const auto lacks_fence = [&](const Mark& write) {
    if (write.thread == 0 || is_async(write.clock)) return false;
    if (write.thread == known.thread && write.clock == known.clock) return false;
    if (shared && !is_own_block(write.thread)) return false;  // of a block that had this memory before
    if (!(shared ? precedes<true>(write.thread, write.clock) : precedes<false>(write.thread, write.clock))) return false;
    if (!fenced(write)) return true;
    known = write;
    return false;
  };
  static Mark found;
  for (uintptr_t i = (address - begin) >> shift; i <= (address + bytes - 1 - begin) >> shift; ++i) {
    if (lacks_fence(cells[i].write)) return found = cells[i].write, &found;
    if (any_atomic(cells[i], lacks_fence, found)) return &found;
  }
  return nullptr;
}

void begin_shadow() {
  const auto cells_of = [](const Buffer& buffer) {
    const int shift = std::countr_zero(std::bit_floor(buffer.item_bytes));
    return ((buffer.end - buffer.begin) >> shift) + 1;
  };
  shared_cells_each = kSharedRoom;
  size_t needed = shared_cells_each * current_launch->resident;
  for (const Buffer& buffer : buffers().all()) needed += buffer.read_only ? 0 : cells_of(buffer);
  memory.provide(needed);
  shared_cells = nullptr;
  regions.clear();
  last_region = 0;
  for (const Buffer& buffer : buffers().all()) {
    const int shift = std::countr_zero(std::bit_floor(buffer.item_bytes));
    Cell* const cells = buffer.read_only ? nullptr : memory.take(cells_of(buffer));
    regions.push_back({buffer.begin, buffer.end, buffer.read_only, shift, cells, &buffer});
  }
  shared_cells = memory.take(shared_cells_each * current_launch->resident);
}

void end_shadow() {
  memory.give_back();
  regions.clear();
  many.clear();
  unused_sets.clear();
}

}  // namespace igf::simt
