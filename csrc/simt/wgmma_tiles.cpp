// Descriptors of wgmma's operands: made, moved on, and checked when a product takes them.
#include <algorithm>

#include "simt/fault.h"
#include "simt/wgmma_state.h"

namespace igf::simt {
namespace {

std::string text_of(const WgmmaTile& tile) {
  static const char* const kNames[] = {"no", "32-byte", "64-byte", "128-byte"};
  return "leading " + std::to_string(tile.leading) + ", stride " + std::to_string(tile.stride) + ", " +
         kNames[static_cast<int>(tile.swizzle)] + " swizzle";
}

// Distances between the tile's patterns, and how many stand at each.
struct Steps {
  uint32_t inner, inner_count;
  uint32_t outer, outer_count;
};

Steps steps_of(const WgmmaTile& tile, bool mn_dense, int extent) {
  const uint32_t across = static_cast<uint32_t>(extent);
  const bool plain = tile.swizzle == WgmmaSwizzle::kNone;
  if (!mn_dense) return {tile.stride, across / 8, plain ? tile.leading : 0, plain ? 2u : 1u};
  const uint32_t in_row = row_bytes(tile.swizzle) / 2;
  const uint32_t atoms = (across + in_row - 1) / in_row;
  if (plain) return {tile.stride, atoms, tile.leading, 2};
  return {tile.leading, atoms, tile.stride, 2};
}

class Checker {
 public:
  Checker(char name, const WgmmaTile& tile, Site site) : name_(name), tile_(tile), site_(site) {}

  [[noreturn]] void fail(const std::string& rule, const std::string& advice) const {
    const std::string tile = std::string("the tile of ") + name_ + " (" + text_of(tile_) + ") ";
    fail_of_wgmma(tile + rule, Word::kWgmma, site_, advice);
  }

  // Swizzles exchange address bits: where a pattern does not stand on its size, they would exchange others.
  void check_pattern(bool mn_dense, int extent) const {
    if (tile_.swizzle == WgmmaSwizzle::kNone) return;
    const uint32_t pattern = pattern_bytes(tile_.swizzle);
    const uint32_t row = row_bytes(tile_.swizzle);
    const uint32_t past = tile_.start % pattern;
    const uint32_t reach = mn_dense ? std::min(static_cast<uint32_t>(extent) * 2, row) : 2 * kPiece;
    if (past >= row) {
      fail("begins " + std::to_string(past) + " bytes past a multiple of " + std::to_string(pattern),
           "its patterns of 8 rows stand on their size; within a row the descriptor may move on");
    }
    if (past + reach > row) {
      fail("begins " + std::to_string(past) + " bytes into a row of " + std::to_string(row) + " bytes and reads " +
               std::to_string(reach) + " of it",
           mn_dense ? "M or N dense: begin where a row of the swizzle does"
                    : "K dense: move on by 32 bytes within a row, then to the next columns of patterns");
    }
  }

  void check_steps(bool mn_dense, int extent) const {
    const uint32_t pattern = pattern_bytes(tile_.swizzle);
    Steps steps = steps_of(tile_, mn_dense, extent);
    for (const auto& [step, count] : {std::pair(steps.inner, steps.inner_count), {steps.outer, steps.outer_count}}) {
      if (count > 1 && tile_.swizzle != WgmmaSwizzle::kNone && step % pattern != 0) {
        fail("has a distance of " + std::to_string(step) + " bytes between its patterns",
             "multiples of " + std::to_string(pattern) + ": each pattern stands on its size");
      }
    }
    if (steps.inner_count > 1 && steps.outer_count > 1 && steps.inner > steps.outer) {
      steps = {steps.outer, steps.outer_count, steps.inner, steps.inner_count};
    }
    const uint32_t inner_end = steps.inner_count > 1 ? steps.inner * (steps.inner_count - 1) + pattern : pattern;
    if ((steps.inner_count > 1 && steps.inner < pattern) || (steps.outer_count > 1 && steps.outer < inner_end)) {
      fail("takes the same bytes for several elements", "check stride and leading: each in bytes, as wgmma_tile says");
    }
  }

  void check_bounds(const std::vector<uint32_t>& pieces) const {
    const SharedLayout& layout = shared_layout();
    const size_t grain = tile_.start / kSharedGrain;
    const uint8_t number = grain < layout.array_of_grain.size() ? layout.array_of_grain[grain] : 0;
    if (number == 0) {
      fail("begins outside of the block's arrays: " + describe_shared(tile_.start, kPiece), "");
    }
    const SharedArray& array = layout.arrays[number - 1];
    for (const uint32_t place : pieces) {
      if (place >= array.offset && place + kPiece <= array.offset + array.bytes) continue;
      fail("leaves its array: it begins at " + describe_shared(tile_.start, kPiece) + " and reads " +
               describe_shared(place, kPiece),
           "check stride and leading, transposition and the number of columns");
    }
  }

 private:
  char name_;
  const WgmmaTile& tile_;
  Site site_;
};

std::vector<WgmmaTileChecked::Run> runs_of(std::vector<uint32_t> pieces) {
  std::sort(pieces.begin(), pieces.end());
  std::vector<WgmmaTileChecked::Run> runs;
  for (const uint32_t place : pieces) {
    if (!runs.empty() && runs.back().begin + runs.back().bytes == place) {
      runs.back().bytes += kPiece;
    } else {
      runs.push_back({place, kPiece});
    }
  }
  return runs;
}

}  // namespace

const WgmmaTileChecked& checked_tile(Warpgroup& group, char name, uint64_t descriptor, bool mn_dense, int extent,
                                     Site site) {
  std::array<WgmmaTileChecked, 64>& tiles = group.checked[name == 'A' ? 0 : 1];
  WgmmaTileChecked& known = tiles[(descriptor ^ descriptor >> 6) % tiles.size()];
  if (known.descriptor == descriptor && known.mn_dense == mn_dense && known.extent == extent) return known;
  const WgmmaTile tile = tile_of(descriptor);
  const Checker checker(name, tile, site);
  if (has_stray_bits(descriptor)) checker.fail("has bits that mean nothing", "make it with wgmma_tile");
  checker.check_pattern(mn_dense, extent);
  checker.check_steps(mn_dense, extent);
  std::vector<uint32_t> pieces = pieces_of(tile, mn_dense, extent);
  checker.check_bounds(pieces);
  known = {descriptor, mn_dense, extent, std::move(pieces), {}};
  known.runs = runs_of(known.pieces);
  return known;
}

namespace {

// The beginning of a tile, or the neighbouring 16 bytes where the word is to be broken.
uint32_t told_start(uint32_t start, Site site) {
  if (mutator == nullptr) return start;
  const uintptr_t address = turn.shared_low + start;
  const Access access{Word::kWgmmaTile, Space::kShared, address, kPiece, site, nullptr};
  return static_cast<uint32_t>(mutator->address(speaker(), access) - turn.shared_low);
}

}  // namespace

uint64_t wgmma_tile(const void* shared, int leading, int stride, WgmmaSwizzle swizzle, Site site) {
  const auto fits = [](int distance) {
    return distance >= 0 && distance < static_cast<int>(kDescriptorBytes) && distance % static_cast<int>(kPiece) == 0;
  };
  if (!fits(leading) || !fits(stride)) {
    fail_of_wgmma("a descriptor with leading " + std::to_string(leading) + " and stride " + std::to_string(stride),
                  Word::kWgmmaTile, site, "both are multiples of 16 bytes in [0, 2^18)");
  }
  const uint32_t start = shared_address(shared, site);
  if (start % kPiece != 0 || start >= kDescriptorBytes) {
    fail_of_wgmma("a tile that stands " + std::to_string(start % kPiece) + " past a multiple of 16 bytes",
                  Word::kWgmmaTile, site, "tiles stand on 16 bytes, in the first 256 KiB of shared memory");
  }
  if (mutator != nullptr) stride = mutator->operand(speaker(), Word::kWgmmaTile, site, stride);
  return descriptor_of(
      {told_start(start, site), static_cast<uint32_t>(leading), static_cast<uint32_t>(stride), swizzle});
}

uint64_t wgmma_advance(uint64_t tile, int bytes, Site site) {
  if (bytes % static_cast<int>(kPiece) != 0 || bytes < 0) {
    fail_of_wgmma("a descriptor is moved on by " + std::to_string(bytes) + " bytes", Word::kWgmmaTile, site,
                  "multiples of 16 from 0 on");
  }
  const uint64_t moved = tile + (static_cast<uint64_t>(bytes) >> 4);
  const uint32_t start = tile_of(moved).start;
  return moved + told_start(start, site) / kPiece - start / kPiece;
}

}  // namespace igf::simt
