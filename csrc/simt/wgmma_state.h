// What a block's warpgroups have under way. For the emulator's own files (wgmma_*.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "simt/core.h"
#include "simt/wgmma_words.h"

namespace igf::simt {

// Sums in the registers of a warpgroup that products under way add to.
struct WgmmaSums {
  std::array<float*, kWarpgroup> places;  // each thread's array
  int columns = 0;
  int under_way = 0;          // products that were not waited for
  Site site;                  // of the latest of them
  std::vector<float> values;  // [64][columns]; stand in the arrays only after the wait
};

// One product between its issue and the wait.
struct WgmmaProduct {
  WgmmaForm form;
  WgmmaTile a, b;
  uint64_t a_hash = 0, b_hash = 0;
  std::list<WgmmaSums>::iterator sums;
  std::array<const uint32_t*, kWarpgroup> a_places;         // of A in registers
  std::vector<std::array<uint32_t, 4>> a_values;            // as they were at the issue, by thread
  uint64_t group = 0;
  Site site;
};

struct Warpgroup {
  // The meeting that gathers.
  Word word = Word::kCount;
  Site site;
  WgmmaForm form;
  int pending = 0;  // of a wait
  std::vector<int> arrived;  // threads of the block
  std::array<WgmmaOffer, kWarpgroup> offers;

  std::deque<WgmmaProduct> products;  // in the order of issue
  std::list<WgmmaSums> sums;
  uint64_t group = 0;   // that the next product will belong to
  bool fenced = false;  // a fence has been said at all
};

struct Warpgroups {
  std::vector<Warpgroup> of;  // by the number of the warpgroup in its block
};

}  // namespace igf::simt
