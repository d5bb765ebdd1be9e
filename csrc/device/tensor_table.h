// A list of tensors as a table in device memory, so that one launch walks over all of them: the host's half.
//
// Every tensor is cut into chunks of one size (the last may be smaller); a chunk never spans two tensors, and chunks
// are numbered in the order of the list. The table's memory is the rows, then for each row the number of the first
// chunk behind it. Kernels find the row of a chunk with RowFinder, tensor_table.cuh.
//
//   TensorTableBuilder<MyRow> list(kMyChunk);
//   for (...) list.add({...}, tensor.numel());
//   Tensor memory = new_empty(like, {list.word_count()}, ScalarType::Long);  // then, in the .cu file:
//   write_table("my_op", list.words(), memory, context);   my_kernel takes list.table(memory)
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "device/context.h"

namespace igf {

// A kernel parameter. Row has a member `int32_t first_chunk`.
template <typename Row>
struct TensorTable {
  const Row* rows;      // [count], on 16 bytes
  const int32_t* ends;  // [count]
  int64_t count;
  int64_t chunks;
};

template <typename Row>
class TensorTableBuilder {
  static_assert(std::is_trivially_copyable_v<Row> && sizeof(Row) % 16 == 0);

 public:
  explicit TensorTableBuilder(int64_t chunk_elements) : chunk_elements_(chunk_elements) {}

  // An empty tensor has no chunks and gets no row.
  void add(Row row, int64_t elements) {
    if (elements == 0) return;
    row.first_chunk = static_cast<int32_t>(chunks_);
    chunks_ += ceil_div(elements, chunk_elements_);
    rows_.push_back(row);
    ends_.push_back(static_cast<int32_t>(chunks_));
  }

  int64_t chunks() const { return chunks_; }
  int64_t word_count() const { return row_words() + ceil_div(static_cast<int64_t>(ends_.size()), 2); }

  // What the table's memory must hold, in words of 8 bytes.
  std::vector<int64_t> words() const {
    std::vector<int64_t> words(static_cast<size_t>(word_count()), 0);
    if (rows_.empty()) return words;
    std::memcpy(words.data(), rows_.data(), rows_.size() * sizeof(Row));
    std::memcpy(words.data() + row_words(), ends_.data(), ends_.size() * sizeof(int32_t));
    return words;
  }

  // The table that stands in `memory` once words() have been written there.
  TensorTable<Row> table(const int64_t* memory) const {
    return {reinterpret_cast<const Row*>(memory), reinterpret_cast<const int32_t*>(memory + row_words()),
            static_cast<int64_t>(rows_.size()), chunks_};
  }

 private:
  int64_t row_words() const { return static_cast<int64_t>(rows_.size() * sizeof(Row) / sizeof(int64_t)); }

  int64_t chunk_elements_;
  int64_t chunks_ = 0;
  std::vector<Row> rows_;
  std::vector<int32_t> ends_;
};

}  // namespace igf
