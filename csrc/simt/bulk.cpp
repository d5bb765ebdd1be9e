#include "simt/bulk.h"

#include <algorithm>
#include <cstring>

#include "cpu/scalar.h"
#include "device/tensor_map_rules.h"
#include "simt/async_words.h"
#include "simt/fault.h"
#include "simt/mbarriers.h"
#include "simt/shadow.h"

namespace igf::simt {
namespace {

constexpr int kSince = 90;  // the architecture that these words came with

void* at(uintptr_t address) { return reinterpret_cast<void*>(address); }

// Calls body(offset in the box in order, address, bytes) for each run of bytes in global memory.
template <typename Body>
void for_each_run(const BulkCopy& copy, const Body& body) {
  if (!copy.tensor) return body(size_t{0}, copy.global, copy.bytes);
  BoxRow row{};
  for (BoxRows rows(copy.shape, copy.at); rows.next(row);) body(row.offset, row.address, row.bytes);
}

// Calls body(offset in the box in order, address) for each 16 bytes in shared memory.
template <typename Body>
void for_each_piece(const BulkCopy& copy, const Body& body) {
  const device::Swizzle swizzle = copy.tensor ? copy.shape.swizzle : device::Swizzle::kNone;
  for (size_t offset = 0; offset < copy.bytes; offset += 16) body(offset, copy.shared + swizzled(offset, swizzle));
}

void account(const BulkCopy& copy, uintptr_t address, uint32_t bytes, const Buffer* buffer) {
  if (observer == nullptr || buffer == nullptr) return;
  observer->moved(copy.origin.who, {copy.origin.word, Space::kGlobal, address, bytes, copy.origin.site, buffer});
}

void arrive(Block& block, BulkCopy& copy) {
  Mbarrier& barrier = *block.mbarriers->at(copy.mbarrier);
  const Where where = where_of(copy.origin.site);
  const AsyncTurn working(copy.origin, mbarrier_lane(barrier.number), kAsyncClock + barrier.phase + 1);
  copy.data.assign(copy.bytes, 0);
  for_each_run(copy, [&](size_t offset, uintptr_t from, uint32_t bytes) {
    const Buffer* const buffer = touch_async(from, bytes, Touch::kRead, where);
    account(copy, from, bytes, buffer);
    std::memcpy(copy.data.data() + offset, at(from), bytes);
  });
  touch_async(copy.shared, copy.bytes, Touch::kWrite, where);
  for_each_piece(copy, [&](size_t offset, uintptr_t to) { std::memcpy(at(to), copy.data.data() + offset, 16); });
  complete_bytes(block, barrier, copy.bytes, copy.origin.word, copy.origin.site);
}

void read_source(BulkCopy& copy) {
  if (copy.read) return;
  copy.read = true;
  const AsyncTurn working(copy.origin, reading_lane(copy.origin.who.thread),
                          kAsyncClock + static_cast<uint32_t>(copy.group) + 1);
  touch_async(copy.shared, copy.bytes, Touch::kRead, where_of(copy.origin.site));
  copy.data.resize(copy.bytes);
  for_each_piece(copy, [&](size_t offset, uintptr_t from) { std::memcpy(copy.data.data() + offset, at(from), 16); });
}

template <typename T>
void add_all(uintptr_t to, const unsigned char* values, uint32_t bytes) {
  for (uint32_t offset = 0; offset < bytes; offset += sizeof(T)) {
    T sum;
    T value;
    std::memcpy(&sum, at(to + offset), sizeof sum);
    std::memcpy(&value, values + offset, sizeof value);
    sum = T(static_cast<float>(sum) + static_cast<float>(value));
    std::memcpy(at(to + offset), &sum, sizeof sum);
  }
}

void write_result(BulkCopy& copy) {
  if (copy.written) return;
  read_source(copy);
  copy.written = true;
  const bool adds = copy.origin.word != Word::kStoreTile;
  const Where where = where_of(copy.origin.site);
  const AsyncTurn working(copy.origin, writing_lane(copy.origin.who.thread),
                          kAsyncClock + static_cast<uint32_t>(copy.group) + 1);
  for_each_run(copy, [&](size_t offset, uintptr_t to, uint32_t bytes) {
    const Buffer* const buffer = touch_async(to, bytes, adds ? Touch::kAtomic : Touch::kWrite, where);
    account(copy, to, bytes, buffer);
    const unsigned char* const values = copy.data.data() + offset;
    if (!adds) {
      std::memcpy(at(to), values, bytes);
    } else if (!copy.tensor || copy.shape.element == Element::kFloat) {
      add_all<float>(to, values, bytes);
    } else if (copy.shape.element == Element::kBfloat16) {
      add_all<bfloat16>(to, values, bytes);
    } else {
      add_all<half>(to, values, bytes);
    }
  });
}

[[noreturn]] void fail_of(const std::string& rule, Word word, Site site, const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

BulkCopies& bulk_of(Block& block) {
  if (block.bulk == nullptr) block.bulk = std::make_shared<BulkCopies>();
  block.bulk->groups.resize(static_cast<size_t>(current_launch->threads));
  return *block.bulk;
}

bool now() {
  Launch& launch = *current_launch;
  if (launch.options.arrival == Arrival::kRandom) return (launch.random() & 1) != 0;
  return launch.options.arrival == Arrival::kEager;
}

// The place in shared memory: in it, in one array, and where the copy wants it.
void check_shared(const BulkCopy& copy) {
  const Word word = copy.origin.word;
  const Site site = copy.origin.site;
  if (copy.shared - turn.shared_low >= turn.shared_bytes) {
    fail_of("a bulk copy whose tile is not in shared memory", word, site, "");
  }
  const size_t alignment =
      copy.tensor ? static_cast<size_t>(device::swizzle_alignment(copy.shape.swizzle)) : size_t{16};
  const size_t past = (copy.shared - turn.shared_low) % alignment;
  if (past != 0) {
    fail_of("misaligned tile: it stands " + std::to_string(past) + " bytes past a multiple of " +
                std::to_string(alignment),
            word, site, copy.tensor ? "what a tile stands on its map's swizzle says" : "bulk copies stand on 16 bytes");
  }
  check_shared_bounds(copy.shared, copy.bytes, copy.origin.word == Word::kLoadTile || copy.origin.word == Word::kBulkLoad ? Touch::kWrite : Touch::kRead, where_of(site));
}

// Of dimensions 1 and up the one in which the box is longest: its rows.
int longest_of(const device::TensorMapShape& shape) {
  return static_cast<int>(std::max_element(shape.box + 1, shape.box + shape.dimensions) - shape.box);
}

BulkCopy tile_of(const device::TensorMap& map, const int* coordinates, int dimensions, uintptr_t shared, Word word,
                 Site site) {
  BulkCopy copy;
  copy.origin.word = word;
  copy.origin.site = site;
  copy.tensor = true;
  copy.shared = shared;
  if (!read_tensor_map(map, copy.shape)) {
    fail_of("the tensor map is none that tensor_map() made", word, site, "make it on the host and pass it by value");
  }
  if (copy.shape.dimensions != dimensions) {
    fail_of("a tile of " + std::to_string(dimensions) + " dimensions of a tensor of " +
                std::to_string(copy.shape.dimensions), word, site, "one coordinate for each dimension of the map");
  }
  std::copy(coordinates, coordinates + dimensions, copy.at);
  const int rows = longest_of(copy.shape);
  copy.at[rows] = operand_of(word, site, copy.at[rows]);
  copy.bytes = static_cast<uint32_t>(box_bytes(copy.shape));
  check_shared(copy);
  return copy;
}

BulkCopy run_of(uintptr_t shared, uintptr_t global, int bytes, Word word, Site site) {
  BulkCopy copy;
  copy.origin.word = word;
  copy.origin.site = site;
  copy.shared = shared;
  copy.global = global;
  if (bytes < 16 || bytes % 16 != 0 || global % 16 != 0) {
    fail_of("a bulk copy of " + std::to_string(bytes) + " bytes whose global address is " +
                std::to_string(global % 16) + " past a multiple of 16", word, site, "both are multiples of 16");
  }
  copy.bytes = static_cast<uint32_t>(bytes);
  check_shared(copy);
  return copy;
}

void begin_load(BulkCopy copy, const uint64_t* barrier) {
  const Word word = copy.origin.word;
  const Site site = copy.origin.site;
  Mbarrier& found = mbarrier_at(barrier, word, site);
  expect_copy(found, word, site);
  copy.mbarrier = found.address;
  copy.origin = origin_here(word, site);
  Block& block = *turn.thread->block;
  std::deque<BulkCopy>& loads = bulk_of(block).loads;
  if (now()) return arrive(block, copy);
  std::memset(at(copy.shared), 0xff, copy.bytes);
  loads.push_back(std::move(copy));
}

void begin_store(BulkCopy copy) {
  BulkCopies& bulk = bulk_of(*turn.thread->block);
  copy.origin = origin_here(copy.origin.word, copy.origin.site);
  copy.group = bulk.groups[static_cast<size_t>(speaker().thread)];
  bulk.stores.push_back(std::move(copy));
  if (now()) write_result(bulk.stores.back());
}

}  // namespace

void stir_copies() {
  Launch& launch = *current_launch;
  Block& block = *turn.thread->block;
  if (launch.options.arrival != Arrival::kRandom || block.bulk == nullptr || launch.random() % 2 == 0) return;
  const size_t loads = block.bulk->loads.size();
  if (loads > 0) {
    const size_t chosen = launch.random() % loads;
    BulkCopy copy = std::move(block.bulk->loads[chosen]);
    block.bulk->loads.erase(block.bulk->loads.begin() + static_cast<std::ptrdiff_t>(chosen));
    arrive(block, copy);
  }
  std::deque<BulkCopy>& stores = block.bulk->stores;
  if (!stores.empty()) {
    const size_t chosen = launch.random() % stores.size();
    read_source(stores[chosen]);
    if (launch.random() % 2 == 0) write_result(stores[chosen]);
  }
}

bool complete_a_load() {
  for (int b = 0; b < current_launch->resident; ++b) {
    Block& block = resident_block(b);
    if (block.bulk == nullptr || block.bulk->loads.empty()) continue;
    BulkCopy copy = std::move(block.bulk->loads.front());
    block.bulk->loads.pop_front();
    arrive(block, copy);
    return true;
  }
  return false;
}

void check_bulk_at_end(Thread& thread) {
  if (thread.block->bulk == nullptr) return;
  for (const BulkCopy& copy : thread.block->bulk->stores) {
    if (copy.origin.who.thread != thread.who.thread || copy.waited_read) continue;
    Fault fault;
    fault.rule = "a store or addition of shared memory is not waited for at the end of the kernel";
    fault.steps.push_back({name_of(thread.who) + " asked for it and returned", where_of(copy.origin.site)});
    fault.advice = "bulk_commit and bulk_wait_read<0>, or bulk_wait<0>: shared memory ends with the block";
    fail(std::move(fault));
  }
}

void finish_bulk(Block& block) {
  check_mbarriers_at_end(block);
  if (block.bulk == nullptr) return;
  for (BulkCopy& copy : block.bulk->stores) write_result(copy);
}

void prefetch_tensor_map(const device::TensorMap& map, Site site) {
  check_architecture(kSince, false, Word::kPrefetchTensorMap, site);
  if (say(Word::kPrefetchTensorMap, site)) return;
  device::TensorMapShape shape{};
  if (!read_tensor_map(map, shape)) {
    fail_of("the tensor map is none that tensor_map() made", Word::kPrefetchTensorMap, site, "");
  }
}

void load_tile(void* shared, const device::TensorMap& map, const int* at, int dimensions, uint64_t* barrier,
               Site site) {
  check_architecture(kSince, false, Word::kLoadTile, site);
  if (say(Word::kLoadTile, site)) return;
  begin_load(tile_of(map, at, dimensions, reinterpret_cast<uintptr_t>(shared), Word::kLoadTile, site), barrier);
}

void store_tile(const device::TensorMap& map, const int* at, int dimensions, const void* shared, Word word,
                Site site) {
  check_architecture(kSince, false, word, site);
  if (say(word, site)) return;
  begin_store(tile_of(map, at, dimensions, reinterpret_cast<uintptr_t>(shared), word, site));
}

void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier, Site site) {
  check_architecture(kSince, false, Word::kBulkLoad, site);
  if (say(Word::kBulkLoad, site)) return;
  begin_load(run_of(reinterpret_cast<uintptr_t>(shared), reinterpret_cast<uintptr_t>(global), bytes, Word::kBulkLoad,
                    site), barrier);
}

void bulk_add(float* global, const void* shared, int bytes, Site site) {
  check_architecture(kSince, false, Word::kBulkAdd, site);
  if (say(Word::kBulkAdd, site)) return;
  begin_store(run_of(reinterpret_cast<uintptr_t>(shared), reinterpret_cast<uintptr_t>(global), bytes, Word::kBulkAdd,
                     site));
}

void bulk_commit(Site site) {
  check_architecture(kSince, false, Word::kBulkCommit, site);
  if (say(Word::kBulkCommit, site)) return;
  ++bulk_of(*turn.thread->block).groups[static_cast<size_t>(speaker().thread)];
}

void bulk_wait(int pending, Word word, Site site) {
  check_architecture(kSince, false, word, site);
  if (say(word, site)) return;
  stir_copies();
  Thread& thread = *turn.thread;
  Block& block = *thread.block;
  BulkCopies& bulk = bulk_of(block);
  const uint64_t groups = bulk.groups[static_cast<size_t>(thread.who.thread)];
  if (groups <= static_cast<uint64_t>(pending)) return;
  const uint64_t over = groups - static_cast<uint64_t>(pending);
  const bool reads_only = word == Word::kBulkWaitRead;
  for (BulkCopy& copy : bulk.stores) {
    if (copy.origin.who.thread != thread.who.thread || copy.group >= over) continue;
    copy.waited_read = true;
    if (reads_only) {
      read_source(copy);
    } else {
      write_result(copy);
    }
  }
  std::erase_if(bulk.stores, [](const BulkCopy& copy) { return copy.waited_read && copy.written; });
  const uint32_t clock = kAsyncClock + static_cast<uint32_t>(over);
  receive(thread, only_lane(block.number, reading_lane(thread.who.thread), clock));
  if (!reads_only) receive(thread, only_lane(block.number, writing_lane(thread.who.thread), clock));
}

}  // namespace igf::simt
