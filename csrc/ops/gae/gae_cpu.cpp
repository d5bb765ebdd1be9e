// gae on the CPU. The recursion is serial along a row, so sixteen rows go side by side in the lanes of vectors; tiles of
// sixteen columns are turned on the way in and out, because memory runs along the rows.
#include "ops/gae/gae.h"

#include <algorithm>

#include "cpu/clones.h"
#include "cpu/parallel.h"

namespace igf {
namespace {

constexpr int kLanes = 16;
constexpr int kTile = 16;

// What a tile holds, [column][row]: sixteen rows side by side.
struct Tile {
  alignas(64) float rewards[kTile][kLanes];
  alignas(64) float values[kTile][kLanes];
  alignas(64) int32_t mask[kTile][kLanes];
  alignas(64) float advantages[kTile][kLanes];
  alignas(64) float returns[kTile][kLanes];
};

// One step back from the counted token that follows, for each row.
struct Next {
  alignas(64) float value[kLanes];
  alignas(64) float advantage[kLanes];
};

IGF_INLINE void load_tile(Tile& tile, const GaeArguments& a, int64_t row, int lanes, int64_t column, int width) {
  for (int l = 0; l < lanes; ++l) {
    const int64_t start = (row + l) * a.columns + column;
    for (int c = 0; c < width; ++c) {
      tile.rewards[c][l] = a.rewards[start + c];
      tile.values[c][l] = a.values[start + c];
      tile.mask[c][l] = a.mask[start + c];
    }
  }
}

IGF_INLINE void store_tile(const Tile& tile, const GaeArguments& a, int64_t row, int lanes, int64_t column, int width) {
  for (int l = 0; l < lanes; ++l) {
    const int64_t start = (row + l) * a.columns + column;
    for (int c = 0; c < width; ++c) {
      a.advantages[start + c] = tile.advantages[c][l];
      a.returns[start + c] = tile.returns[c][l];
    }
  }
}

IGF_INLINE void step(Tile& tile, Next& next, int c, float gamma, float decay) {
  for (int l = 0; l < kLanes; ++l) {
    const bool counted = tile.mask[c][l] != 0;
    const float value = tile.values[c][l];
    const float delta = tile.rewards[c][l] + gamma * next.value[l] - value;
    const float advantage = delta + decay * next.advantage[l];
    tile.advantages[c][l] = counted ? advantage : 0.0f;
    tile.returns[c][l] = counted ? advantage + value : 0.0f;
    next.value[l] = counted ? value : next.value[l];
    next.advantage[l] = counted ? advantage : next.advantage[l];
  }
}

IGF_CLONES void sixteen_rows(const GaeArguments& a, int64_t row) {
  const int lanes = static_cast<int>(std::min<int64_t>(kLanes, a.rows - row));
  Tile tile{};  // zeros: lanes without a row compute on numbers, whatever they are
  Next next{};
  for (int64_t end = a.columns; end > 0; end -= kTile) {
    const int64_t begin = std::max<int64_t>(0, end - kTile);
    const int width = static_cast<int>(end - begin);
    load_tile(tile, a, row, lanes, begin, width);
    for (int c = width - 1; c >= 0; --c) step(tile, next, c, a.gamma, a.gamma * a.lambda);
    store_tile(tile, a, row, lanes, begin, width);
  }
}

}  // namespace

void gae_forward(const GaeArguments& arguments) {
  const int64_t groups = (arguments.rows + kLanes - 1) / kLanes;
  // A group of fewer than 4,096 tokens takes less time than waking a thread.
  const int64_t grain = 1 + 4096 / (kLanes * std::max<int64_t>(1, arguments.columns));
  parallel_for(0, groups, grain, [&](int64_t first, int64_t last) {
    for (int64_t group = first; group < last; ++group) sixteen_rows(arguments, group * kLanes);
  });
}

}  // namespace igf
