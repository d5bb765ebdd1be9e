#include "simt/shared.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "simt/fault.h"

namespace igf::simt {
namespace {

constexpr size_t kStaticLimit = 48 << 10;
constexpr size_t kDynamicAlignment = 1024;

struct Arena {
  char* memory = nullptr;
  int blocks = 0;
  int64_t limit = 0;
  SharedLayout layout;
};

Arena arena;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

size_t cells_of(const SharedArray& array) { return (array.bytes >> array.cell_shift) + 1; }

void add_array(const char* name, const char* function, Site site, size_t bytes, uint32_t item_bytes) {
  SharedLayout& layout = arena.layout;
  // The dynamic block stands first, on 1024; static arrays on 16 and, so that nobody relies on more, not on 32.
  const bool dynamic = layout.arrays.empty();
  const size_t offset = dynamic ? kDynamicAlignment : round_up(layout.end + kRedZone, 2 * kSharedGrain) + kSharedGrain;
  const int cell_shift = std::min(std::countr_zero(item_bytes), 2);
  const size_t cells = layout.arrays.empty() ? 0 : layout.arrays.back().first_cell + cells_of(layout.arrays.back());
  layout.arrays.push_back({name, function, site, offset, bytes, item_bytes, cell_shift, cells});
  layout.end = offset + bytes;
  layout.array_of_grain.resize(round_up(layout.end + kRedZone, kSharedGrain) / kSharedGrain, 0);
  for (size_t grain = offset / kSharedGrain; grain * kSharedGrain < layout.end; ++grain) {
    layout.array_of_grain[grain] = static_cast<uint8_t>(layout.arrays.size());
  }
}

[[noreturn]] void fail_of_size(const char* what, int64_t bytes, int64_t limit, Site site) {
  Fault fault;
  fault.rule = "too much shared memory: " + std::to_string(bytes) + " bytes of " + what + ", the limit is " +
               std::to_string(limit);
  fault.steps.push_back({"the last array was asked for", where_of(site)});
  fail(std::move(fault));
}

}  // namespace

void begin_shared(int resident, int64_t dynamic_bytes, int64_t limit) {
  constexpr int64_t kLostToAlignment = kDynamicAlignment - 1;
  if (dynamic_bytes != 0 && dynamic_bytes + kLostToAlignment > limit) {
    throw std::runtime_error(std::string(current_launch->facts.kernel) + ": the launch asks for " +
                             std::to_string(dynamic_bytes) + " bytes of dynamic shared memory (and 1023 to align it), "
                             "the limit is " + std::to_string(limit));
  }
  if (resident > arena.blocks) {
    if (arena.memory != nullptr) munmap(arena.memory, arena.blocks * kSharedRoom);
    arena.blocks = 0;
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, resident * kSharedRoom, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    arena.memory = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
    if (arena.memory == nullptr) throw std::runtime_error("simt: no memory for the shared memory of the blocks");
    arena.blocks = resident;
  }
  arena.limit = limit;
  arena.layout = SharedLayout();
  add_array("the dynamic block", "", Site(), static_cast<size_t>(dynamic_bytes), 2);
}

SharedMemory shared_memory(int resident_block) { return {arena.memory + resident_block * kSharedRoom}; }

void refill(const SharedMemory& memory) { std::memset(memory.base, 0xFF, shared_extent()); }

const SharedLayout& shared_layout() { return arena.layout; }

size_t shared_extent() { return arena.layout.array_of_grain.size() * kSharedGrain; }

char* shared_array(const char* name, const char* function, size_t bytes, uint32_t item_bytes, Site site) {
  SharedLayout& layout = arena.layout;
  char* const base = turn.thread->block->shared.base;
  for (size_t i = 1; i < layout.arrays.size(); ++i) {
    const SharedArray& known = layout.arrays[i];
    if (known.name == name && known.function == function && known.site.line == site.line) return base + known.offset;
  }
  const size_t before = shared_extent();
  add_array(name, function, site, bytes, item_bytes);
  layout.static_bytes += round_up(bytes, kSharedGrain);
  const size_t dynamic = layout.arrays[0].bytes;
  if (layout.static_bytes > kStaticLimit) fail_of_size("static arrays", layout.static_bytes, kStaticLimit, site);
  if (static_cast<int64_t>(layout.static_bytes + dynamic) > arena.limit) {
    fail_of_size("static arrays and dynamic block", layout.static_bytes + dynamic, arena.limit, site);
  }
  if (layout.arrays.size() > 250) fail_of_size("more than 250 static arrays", 0, 0, site);
  // Blocks that began before the array was known have not filled it.
  for (int b = 0; b < current_launch->resident; ++b) {
    std::memset(shared_memory(b).base + before, 0xFF, shared_extent() - before);
  }
  return base + layout.arrays.back().offset;
}

unsigned char* dynamic_shared(Site) {
  return reinterpret_cast<unsigned char*>(turn.thread->block->shared.base + arena.layout.arrays[0].offset);
}

uint32_t shared_address(const void* pointer, Site site) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(pointer) - turn.shared_low;
  if (offset >= turn.shared_bytes) {
    Fault fault;
    fault.rule = "a pointer outside shared memory is taken for one inside";
    fault.steps.push_back({name_of(speaker()), where_of(site)});
    fail(std::move(fault));
  }
  return static_cast<uint32_t>(offset);
}

std::string describe_shared(size_t offset, uint32_t bytes) {
  const SharedArray* nearest = nullptr;
  int64_t outside = 0;  // > 0: behind its end, < 0: before its begin
  for (const SharedArray& array : arena.layout.arrays) {
    const int64_t before = static_cast<int64_t>(array.offset) - static_cast<int64_t>(offset);
    const int64_t behind = static_cast<int64_t>(offset + bytes) - static_cast<int64_t>(array.offset + array.bytes);
    const int64_t away = before > 0 ? -before : behind > 0 ? behind : 0;
    if (nearest == nullptr || std::abs(away) < std::abs(outside)) nearest = &array, outside = away;
  }
  const Site site = nearest->site;
  const std::string place =
      site.file == nullptr ? "" : " (" + std::string(site.file) + ":" + std::to_string(site.line) + ")";
  const std::string size = ", of " + std::to_string(nearest->bytes) + " bytes" + place;
  if (outside == 0 && site.file != nullptr) {
    const size_t index = (offset - nearest->offset) / nearest->item_bytes;
    return std::string(nearest->name) + "[" + std::to_string(index) + "]" + place;
  }
  if (outside == 0) return "byte " + std::to_string(offset - nearest->offset) + " of " + nearest->name;
  if (outside < 0) return std::to_string(-outside) + " bytes before the first of " + nearest->name + size;
  return std::to_string(outside) + " bytes past the end of " + nearest->name + size;
}

}  // namespace igf::simt
