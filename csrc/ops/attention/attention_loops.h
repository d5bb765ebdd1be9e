// What the forward and the backward loops of attention share: who sees whom, scratch memory, rows in and out, tasks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_tiles.h"

namespace igf::loops {

inline constexpr int64_t kQueries = 16;  // rows of a tile: small, so that little is computed beyond the diagonal
inline constexpr int64_t kKeys = 128;    // keys of a block: its scores, keys and values stay in the second-level cache
inline constexpr int64_t kChunk = 128;   // queries of a forward task, over which packing a block is spread

static_assert(kKeys % tiles::kDropoutKeys == 0 && kKeys % tiles::kVector == 0);

// Which keys query i of a sequence sees.
struct Band {
  int64_t offset, keys, window;
  bool causal;

  int64_t end(int64_t i) const { return causal ? std::clamp<int64_t>(i + offset + 1, 0, keys) : keys; }
  int64_t begin(int64_t i) const { return window > 0 ? std::clamp<int64_t>(i + offset + 1 - window, 0, keys) : 0; }
};

inline Band band_of(const AttentionShape& shape, const AttentionSequence& sequence) {
  return {sequence.k_count - sequence.q_count, sequence.k_count, shape.window, shape.causal};
}

// The columns of a block of keys that some query of a tile sees, widened on the left to a whole vector.
struct TileColumns {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
  tiles::Visible visible(const Band& band, int64_t i) const {
    const int64_t first = std::clamp(band.begin(i), begin, end);
    return {first - begin, std::clamp(band.end(i), first, end) - begin};
  }
};

inline TileColumns tile_columns(const Band& band, int64_t first_query, int64_t last_query, int64_t block,
                                int64_t block_end) {
  const int64_t begin = std::max(block, band.begin(first_query));
  const int64_t aligned = block + (begin - block) / tiles::kVector * tiles::kVector;
  return {aligned, std::max(aligned, std::min(block_end, band.end(last_query)))};
}

// Memory for one thread, aligned to a cache line.
class Scratch {
 public:
  float* take(int64_t floats) {
    const size_t bytes = static_cast<size_t>(tiles::padded(floats)) * sizeof(float);
    parts_.emplace_back(static_cast<float*>(::operator new(bytes, kAlign)));
    return parts_.back().get();
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlign); }
  };
  std::vector<std::unique_ptr<float, Free>> parts_;
};

template <typename T>
T* row_of(const AttentionView<T>& view, int64_t row, int64_t head) {
  return view.data + row * view.row_stride + head * view.head_stride;
}

// Rows of one head lie far apart, where no hardware prefetcher follows: without this a quarter of the time goes into
// waiting for the lines that results are written to.
inline constexpr int64_t kAhead = 8;
template <typename T>
IGF_INLINE void prefetch_for_write(T* row, int64_t width) {
  for (int64_t d = 0; d < width; d += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + d, 1);
}

// to[r][0, width) = factor * rows [row, row + count) of one head, zeros up to the pitch.
template <typename T>
void read_rows(const AttentionView<const T>& view, int64_t row, int64_t head, int64_t count, int64_t width,
               float factor, float* to) {
  const int64_t pitch = tiles::padded(width);
  for (int64_t r = 0; r < count; ++r) {
    tiles::read_row(row_of(view, row + r, head), to + r * pitch, width, factor);
    std::fill(to + r * pitch + width, to + (r + 1) * pitch, 0.0f);
  }
}

inline tiles::Dropout dropout_of(const AttentionShape& shape) {
  const double threshold = std::round(static_cast<double>(shape.dropout_p) * 4294967296.0);
  return {shape.dropout_seed, static_cast<uint32_t>(std::min(threshold, 4294967295.0)),
          1.0f / (1.0f - shape.dropout_p)};
}

// The dropout factors of the tile's columns: drawn for whole groups of keys (blocks begin on a group), returned from
// the first column on.
inline const float* draw_keep(const AttentionShape& shape, int64_t row, int64_t head, const TileColumns& columns,
                       float* keep) {
  constexpr int64_t kGroup = tiles::kDropoutKeys;
  const int64_t first = columns.begin / kGroup * kGroup;
  const int64_t count = (columns.end - first + kGroup - 1) / kGroup * kGroup;
  tiles::dropout_row(dropout_of(shape), row, head, first, keep, count);
  return keep + columns.begin - first;
}

struct Task {
  const AttentionSequence* sequence;
  int64_t kv_head;
  int64_t first_query, last_query;
  int64_t work;
};

// Runs run(task, scratch) for every task, each on the thread that comes free next.
template <typename MakeBuffers, typename Run>
void run_tasks(std::vector<Task>& tasks, const MakeBuffers& make_buffers, const Run& run) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.work > b.work; });
  const int64_t count = static_cast<int64_t>(tasks.size());
  std::atomic<int64_t> next{0};
  parallel_for(0, count, 1, [&](int64_t, int64_t) {
    int64_t index = next.fetch_add(1);
    if (index >= count) return;
    Scratch scratch;
    auto buffers = make_buffers(scratch);
    for (; index < count; index = next.fetch_add(1)) run(tasks[static_cast<size_t>(index)], buffers);
  });
}

}  // namespace igf::loops
