// The output layer in pieces: logits = hidden @ weight.T for some rows at a time, in one bounded buffer. CPU.
//
// The logits of all tokens, [tokens, vocabulary], are the largest tensor of a language model and are never whole here: a
// chunk of rows is multiplied, worked on in place, and turned into its share of both gradients before the next one.
// Rows that are not asked for are never read, so that a prompt costs nothing.
//
//   VocabularyChunks chunks(hidden, weight, rows);
//   for (int64_t i = 0; i < chunks.size(); ++i) {
//     const VocabularyChunks::Chunk chunk = chunks.logits(i);
//     turn_into_gradient(mutable_data<T>(chunk.logits), chunk.count, ...);
//     chunks.add_gradients(chunk);
//   }
//
// Numbers: bfloat16 is multiplied as bfloat16 (processors have matmuls for it); float16 is widened to f32, because no
// processor multiplies it faster and its range is too small for a sum of gradients. The weight gradient of bfloat16 is
// rounded once a chunk and summed over chunks in f32.
// Memory beyond results: logits <= kBytesAtMost (at least one row), a copy of a chunk's rows where rows are left out,
// float16: the weight in f32; bfloat16: the weight gradient in f32 when there is more than one chunk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"
#include "cpu/accumulate.h"
#include "cpu/rows.h"

namespace igf {

class VocabularyChunks {
 public:
  // Measured at V = 8,192 and 50,257, D = 256: below 32 MiB the C library hands the same pages out again and again,
  // above it each call pays for fresh ones; but the weight gradient of a chunk with few rows is bound by memory.
  static constexpr int64_t kUsualBytes = int64_t{24} << 20;
  static constexpr int64_t kUsualRowsAtLeast = 512;
  static constexpr int64_t kBytesAtMost = int64_t{64} << 20;

  struct Chunk {
    int64_t first;  // place of its first row in the list of rows
    int64_t count;
    Tensor hidden;  // [count, D]
    Tensor logits;  // [count, V], to be overwritten with the gradient
  };

  // The dtype of chunks and of dhidden() for inputs of `dtype`.
  static ScalarType compute_dtype(ScalarType dtype) {
    return dtype == ScalarType::BFloat16 ? ScalarType::BFloat16 : ScalarType::Float;
  }

  // hidden [N, D], weight [V, D] of one dtype; rows: ascending places in [0, N).
  VocabularyChunks(const Tensor& hidden, const Tensor& weight, std::vector<int64_t> rows)
      : dtype_(compute_dtype(hidden.scalar_type())),
        hidden_(dense(cast(hidden, dtype_))),
        weight_(dense(cast(weight, dtype_))),
        rows_(std::move(rows)),
        whole_(static_cast<int64_t>(rows_.size()) == hidden.size(0)) {
    const int64_t count = static_cast<int64_t>(rows_.size());
    const int64_t row_bytes = std::max<int64_t>(1, vocabulary() * item_bytes());
    const int64_t usual = std::max(kUsualBytes / row_bytes, kUsualRowsAtLeast);
    const int64_t most = std::clamp<int64_t>(usual, 1, std::max<int64_t>(1, kBytesAtMost / row_bytes));
    size_ = (count + most - 1) / most;
    // Chunks of one size, up to a row, rather than full ones and a remainder.
    length_ = size_ == 0 ? 0 : (count + size_ - 1) / size_;
    size_ = size_ == 0 ? 0 : (count + length_ - 1) / length_;
    buffer_ = new_empty(hidden_, {length_, vocabulary()}, dtype_);
    if (!whole_) gathered_ = new_empty(hidden_, {length_, width()}, dtype_);
  }

  int64_t size() const { return size_; }
  int64_t vocabulary() const { return weight_.size(0); }
  int64_t width() const { return weight_.size(1); }
  ScalarType dtype() const { return dtype_; }

  // Multiplies chunk i; the logits of the chunk before are lost.
  Chunk logits(int64_t i) {
    const int64_t first = i * length_;
    const int64_t count = std::min(length_, static_cast<int64_t>(rows_.size()) - first);
    Chunk chunk{first, count, take_rows(first, count), rows_view(buffer_, 0, count)};
    cpu_mm_out(chunk.logits, chunk.hidden, transposed(weight_));
    return chunk;
  }

  // Makes room for gradients that add_gradients() then fills; uncounted rows of dhidden are zero.
  void want_dhidden() {
    dhidden_ = whole_ ? new_empty(hidden_, {hidden_.size(0), width()}, dtype_)
                      : new_zeros(hidden_, {hidden_.size(0), width()}, dtype_);
    if (!whole_) chunk_dhidden_ = new_empty(hidden_, {length_, width()}, dtype_);
  }

  void want_dweight() {
    dweight_ = size_ == 0 ? new_zeros(weight_, {vocabulary(), width()}, dtype_)
                          : new_empty(weight_, {vocabulary(), width()}, dtype_);
    if (dtype_ != ScalarType::Float && size_ > 1) {
      dweight_sum_ = new_empty(weight_, {vocabulary(), width()}, ScalarType::Float);
    }
  }

  // dhidden [N, D] and dweight [V, D] of dtype(); missing where they were not wanted.
  const OptionalTensor& dhidden() const { return dhidden_; }
  const OptionalTensor& dweight() const { return dweight_; }

  // dhidden = dlogits @ weight, dweight += dlogits.T @ hidden, with the gradient of the logits in chunk.logits.
  void add_gradients(const Chunk& chunk) {
    if (dhidden_.has_value()) add_dhidden(chunk);
    if (dweight_.has_value()) add_dweight(chunk);
  }

 private:
  int64_t item_bytes() const { return dtype_ == ScalarType::Float ? 4 : 2; }

  Tensor take_rows(int64_t first, int64_t count) const {
    if (whole_) return rows_view(hidden_, first, count);
    gather_rows(hidden_.const_data_ptr(), gathered_->mutable_data_ptr(), rows_.data() + first, count,
                width() * item_bytes());
    return rows_view(*gathered_, 0, count);
  }

  void add_dhidden(const Chunk& chunk) {
    if (whole_) {
      cpu_mm_out(rows_view(*dhidden_, chunk.first, chunk.count), chunk.logits, weight_);
      return;
    }
    cpu_mm_out(rows_view(*chunk_dhidden_, 0, chunk.count), chunk.logits, weight_);
    scatter_rows(chunk_dhidden_->const_data_ptr(), dhidden_->mutable_data_ptr(), rows_.data() + chunk.first,
                 chunk.count, width() * item_bytes());
  }

  void add_dweight(const Chunk& chunk) {
    const bool is_first = chunk.first == 0;
    if (!dweight_sum_.has_value()) {
      cpu_addmm_out(*dweight_, transposed(chunk.logits), chunk.hidden, is_first ? 0.0 : 1.0);
      return;
    }
    cpu_mm_out(*dweight_, transposed(chunk.logits), chunk.hidden);
    const bool is_last = chunk.first + chunk.count == static_cast<int64_t>(rows_.size());
    accumulate(mutable_data<bfloat16>(*dweight_), mutable_data<float>(*dweight_sum_), vocabulary() * width(), is_first,
               is_last);
  }

  ScalarType dtype_;
  Tensor hidden_;
  Tensor weight_;
  std::vector<int64_t> rows_;
  bool whole_;
  int64_t size_ = 0;
  int64_t length_ = 0;
  Tensor buffer_;
  OptionalTensor gathered_;
  OptionalTensor dhidden_;
  OptionalTensor chunk_dhidden_;
  OptionalTensor dweight_;
  OptionalTensor dweight_sum_;
};

}  // namespace igf
