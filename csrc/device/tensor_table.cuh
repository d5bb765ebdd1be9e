// A list of tensors as a table in device memory: how the table gets there, and how kernels find their way in it.
#pragma once

#include <algorithm>

#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/tensor_table.h"

namespace igf::device {

constexpr int kTablePartWords = 1984;  // of 8 bytes, what one launch carries: 248 rows of 64 bytes
constexpr int kTableThreads = 64;

struct TablePart {
  int64_t words[kTablePartWords];
};

// table[i] = part.words[i], a word a thread. A template, so that every source that includes this may have its own.
template <int kThreads>
IGF_KERNEL(kThreads)
write_table_part(TablePart part, int64_t* table, int count) {
  const int64_t word = block_x() * kThreads + thread_x();  // [0, count), and above in the last block
  if (word < count) store(table + word, part.words[word]);
}

// Writes `words` to device memory, one small launch for each kTablePartWords of them.
//
// The words travel as kernel parameters. A copy from host memory would need that memory to stay as it is until the copy
// is made, and in a CUDA graph until the last replay; parameters belong to the launch, and to the graph that recorded
// it. So nothing is kept between calls, and nothing waits. (More than 4 KiB of them need CUDA 12.1.)
// Static: every source launches the kernel that was compiled with it.
static void write_table(const char* name, const std::vector<int64_t>& words, int64_t* table,
                        const DeviceContext& context) {
  const int64_t count = static_cast<int64_t>(words.size());
  for (int64_t first = 0; first < count; first += kTablePartWords) {
    const int part_words = static_cast<int>(std::min<int64_t>(count - first, kTablePartWords));
    TablePart part{};
    std::copy_n(words.begin() + first, part_words, part.words);
    const LaunchShape shape{ceil_div(part_words, kTableThreads), 1, kTableThreads, 1};
    launch(name, write_table_part<kTableThreads>, shape, context, part, table + first, part_words);
  }
}

// Finds the rows of chunks whose numbers rise from call to call. Every lane of a warp holds the same finder and must
// make the same calls; a warp reads each entry of `ends` once.
class RowFinder {
 public:
  template <typename Row>
  IGF_DEVICE explicit RowFinder(const TensorTable<Row>& table IGF_SITE_PARAMETER)
      : ends_(table.ends), count_(table.count) {
    read_window(IGF_ONLY_SITE);
  }

  // The row of `chunk`, in [0, table.count) for a chunk in [0, table.chunks).
  IGF_DEVICE int64_t find(int64_t chunk IGF_SITE_PARAMETER) {
    for (;;) {
      const uint32_t passed = ballot(end_ <= chunk, kAllLanes IGF_SITE);  // ends rise: a run of low bits
      if (passed != kAllLanes) return window_ + count_bits(passed);
      window_ += kWarp;
      read_window(IGF_ONLY_SITE);
    }
  }

 private:
  IGF_DEVICE void read_window(IGF_ONLY_SITE_PARAMETER) {
    constexpr int32_t kBehindAllChunks = 0x7fffffff;
    const int64_t row = window_ + lane_index();
    end_ = row < count_ ? load(ends_ + row IGF_SITE) : kBehindAllChunks;
  }

  const int32_t* ends_;
  int64_t count_;
  int64_t window_ = 0;  // the first of the 32 rows whose ends the lanes hold
  int32_t end_;
};

// A whole row, in accesses of 16 bytes; all lanes of a warp read the same one.
template <typename Row>
IGF_DEVICE Row load_row(const TensorTable<Row>& table, int64_t row IGF_SITE_PARAMETER) {
  using Piece = Vector<uint32_t, 4>;
  constexpr int kPieces = static_cast<int>(sizeof(Row) / sizeof(Piece));
  struct Pieces {
    Piece pieces[kPieces];
  } words;
  const Piece* from = reinterpret_cast<const Piece*>(table.rows + row);
#pragma unroll
  for (int i = 0; i < kPieces; ++i) words.pieces[i] = load(from + i IGF_SITE);
  return __builtin_bit_cast(Row, words);
}

}  // namespace igf::device
