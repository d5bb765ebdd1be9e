// What a block's warpgroups have under way. For the emulator's own files (wgmma_*.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <vector>

#include "simt/core.h"
#include "simt/register_watch.h"
#include "simt/wgmma_words.h"

namespace igf::simt {

// Sums in the registers of a warpgroup that products under way add to.
struct WgmmaSums {
  std::array<float*, kWarpgroup> places;  // each thread's array
  int columns = 0;
  int under_way = 0;          // products that were not waited for
  std::vector<float> values;  // [64][columns]; they stand in the arrays only after the wait
  size_t bytes() const { return static_cast<size_t>(columns) / 2 * sizeof(float); }  // of a thread
};

inline constexpr size_t kBytesOfA = 4 * sizeof(uint32_t);  // in a thread's registers

// One product between its issue and the wait.
struct WgmmaProduct {
  WgmmaForm form;
  std::list<WgmmaSums>::iterator sums;
  std::array<const uint32_t*, kWarpgroup> a_places;  // of A in registers
  uint64_t group = 0;
  Site site;
};

// A tile that has passed all checks, and where it lies: a loop hands over the same ones again.
struct WgmmaTileChecked {
  struct Run {
    uint32_t begin, bytes;
  };
  uint64_t descriptor = ~uint64_t{0};
  bool mn_dense = false;
  int extent = 0;
  std::vector<uint32_t> pieces;
  std::vector<Run> runs;  // the same bytes, by address
};

struct Warpgroup {
  int first = 0;  // thread of the block
  // The meeting that gathers.
  Word word = Word::kCount;
  Site site;
  WgmmaForm form;
  int pending = 0;           // of a wait
  std::vector<int> arrived;  // threads of the block
  std::array<WgmmaOffer, kWarpgroup> offers;

  std::deque<WgmmaProduct> products;  // in the order of issue
  std::list<WgmmaSums> sums;
  uint64_t group = 0;  // that the next product will belong to
  uint32_t issued = 0;  // products so far: the clock of the lane that reads for them
  bool fenced = false;
  std::vector<RegisterWatch> watches;  // by thread, from the first fence on
  std::array<WgmmaTileChecked, 64> checked[2];  // of A, of B, by a hash of the descriptor
};

struct Warpgroups {
  std::vector<Warpgroup> of;  // by the number of the warpgroup in its block
};

// wgmma_tiles.cpp: where the operand `name`, A or B, lies; fails where it cannot lie so, all of it in one array.
const WgmmaTileChecked& checked_tile(Warpgroup& group, char name, uint64_t descriptor, bool mn_dense, int extent,
                                     Site site);

// wgmma_products.cpp. All 128 threads have come; `offers` are theirs.
void issue_product(Warpgroup& group, const WgmmaForm& form, Site site);
// Ends the products but those of the `pending` latest groups and of none.
void end_products(Warpgroup& group, int pending);
// The thread whose turn it is touches bytes of its stack of which some belong to a product under way.
[[noreturn]] void fail_of_registers_under_way(uintptr_t address, size_t bytes, bool writes, Where where);

[[noreturn]] void fail_of_wgmma(const std::string& rule, Word word, Site site, const std::string& advice);

}  // namespace igf::simt
