// The output layer in pieces on a CUDA device: logits = hidden @ weight.T for some rows at a time, in one bounded buffer.
// binding/vocabulary_chunks.h is the same for the CPU, and says why.
//
//   DeviceVocabularyChunks chunks(hidden, weight, rows, context, Gradients{true, true});
//   for (int64_t i = 0; i < chunks.size(); ++i) {
//     const DeviceVocabularyChunks::Chunk chunk = chunks.logits(i);
//     turn_into_gradient(chunk.buffer, chunk.count, chunks.stride(), ...);
//     chunks.add_gradients(chunk);
//   }
//
// Rows of the buffer are a multiple of 64 elements apart, so that kernels and cuBLAS find each on 16 bytes (V = 50,257
// is odd).
//
// Length of a chunk. A product of tiles of 128 x 256 keeps M multiprocessors busy for w rounds with 32,768 w M logits.
//   Without a weight gradient, w = 6: 516 rows at V = 50,257 on 132 multiprocessors, 52 MB in 16 bits, which stay
//   within reach of an H200's 60 MB of second-level cache until they are read; the weight is read again for each chunk,
//   which 516 operations a byte hide (790 TFLOP/s need 184 at 4.3 TB/s).
//   With one, w = 12: 1,032 rows, 104 MB. Each chunk reads and writes the f32 sum of the weight gradient, 8 V D bytes
//   beside 2 c V D operations: c / 4 operations a byte, so that c must be above 740 whatever else it costs; keeping the
//   chunk in the second-level cache would save 10 c V bytes and lose more.
// Not measured.
//
// Numbers: sums in f32. float32 and bfloat16: the chunk and dhidden have the inputs' dtype; the weight gradient of
// bfloat16 is summed over chunks in f32 and rounded once. float16: the chunk is float16, multiplied as such, and its
// gradient is to be written times a power of two that keeps it in range (`gradient_scale`), which is divided out of f32
// products: dhidden() and dweight() are f32.
//
// Memory beyond results: the chunk; where rows are left out, their copies, [c, D] twice; bfloat16: the f32 sum, 4 V D
// bytes, when there is more than one chunk. At V = 50,257: D = 768 104 + 154 MB, D = 1600 104 + 322 MB.
#pragma once

#include <algorithm>

#include "binding/cuda/context.h"
#include "binding/cuda/matmul.h"

namespace igf {

struct Gradients {
  bool dhidden;
  bool dweight;
};

// The places of the elements that are not 0 (NaN is not), ascending, i64 [n]. Waits for the device: n is needed here.
inline Tensor places_of(const Tensor& vector) {
  Tensor places = call_aten<Tensor>("aten::nonzero", "", vector);
  return torch::stable::flatten(places, 0, -1);
}

// vector[places], dense.
inline Tensor picked(const Tensor& vector, const Tensor& places) {
  const Tensor out = new_empty(vector, {places.size(0)}, vector.scalar_type());
  call_aten<Tensor>("aten::index_select", "out", vector, int64_t{0}, places, out);
  return out;
}

class DeviceVocabularyChunks {
 public:
  struct Chunk {
    int64_t first;  // place of its first row in the list of rows
    int64_t count;
    Tensor hidden;  // [count, D]
    Tensor logits;  // [count, V], a view of ...
    Tensor buffer;  // [count, stride()], to be overwritten with the gradient
  };

  // The dtype of dhidden() and dweight() for inputs of `dtype`.
  static ScalarType result_dtype(ScalarType dtype) {
    return dtype == ScalarType::BFloat16 ? ScalarType::BFloat16 : ScalarType::Float;
  }

  // hidden [N, D], weight [V, D] of one dtype; rows: places in [0, N), i64, ascending; absent: all.
  DeviceVocabularyChunks(const Tensor& hidden, const Tensor& weight, OptionalTensor rows, const DeviceContext& context,
                   Gradients wanted)
      : hidden_(dense(hidden)), weight_(dense(weight)), rows_(std::move(rows)) {
    constexpr int64_t kStep = 64, kTile = 128 * 256, kTileRows = 128;
    if (rows_.has_value() && rows_->size(0) == hidden_.size(0)) rows_ = std::nullopt;  // all: nothing to copy
    rows_in_all_ = rows_.has_value() ? rows_->size(0) : hidden_.size(0);
    stride_ = ceil_div(vocabulary(), kStep) * kStep;
    const int64_t rounds = wanted.dweight ? 12 : 6;
    int64_t most = std::max<int64_t>(1, rounds * kTile * context.multiprocessors / stride_);
    if (most > kTileRows) most -= most % kTileRows;
    size_ = ceil_div(rows_in_all_, most);
    // Chunks of one size, up to a row, rather than full ones and a remainder.
    length_ = size_ == 0 ? 0 : ceil_div(rows_in_all_, size_);
    size_ = size_ == 0 ? 0 : ceil_div(rows_in_all_, length_);
    buffer_ = new_empty(hidden_, {length_, stride_}, dtype());
    if (rows_.has_value()) gathered_ = new_empty(hidden_, {length_, width()}, dtype());
    if (wanted.dhidden) want_dhidden();
    if (wanted.dweight) want_dweight();
  }

  int64_t size() const { return size_; }
  int64_t rows_in_all() const { return rows_in_all_; }
  int64_t vocabulary() const { return weight_.size(0); }
  int64_t width() const { return weight_.size(1); }
  int64_t stride() const { return stride_; }
  ScalarType dtype() const { return hidden_.scalar_type(); }

  // Multiplies chunk i; the logits of the chunk before are lost.
  Chunk logits(int64_t i) {
    const int64_t first = i * length_;
    const int64_t count = std::min(length_, rows_in_all_ - first);
    Tensor buffer = rows_view(*buffer_, 0, count);
    Chunk chunk{first, count, take_rows(first, count), torch::stable::narrow(buffer, 1, 0, vocabulary()), buffer};
    matmul(chunk.logits, chunk.hidden, transposed(weight_));
    return chunk;
  }

  // dhidden [N, D], 0 where a row is left out, and dweight [V, D], of result_dtype(); missing where not wanted.
  const OptionalTensor& dhidden() const { return dhidden_; }
  const OptionalTensor& dweight() const { return dweight_; }

  // dhidden = dlogits @ weight, dweight += dlogits.T @ hidden, with gradient_scale times the gradient of the logits in
  // chunk.logits; the scale is 1 but for float16.
  void add_gradients(const Chunk& chunk, float gradient_scale) {
    if (dhidden_.has_value()) add_dhidden(chunk, 1.0f / gradient_scale);
    if (dweight_.has_value()) add_dweight(chunk, 1.0f / gradient_scale);
  }

 private:
  ScalarType result_dtype() const { return result_dtype(dtype()); }

  void want_dhidden() {
    const std::vector<int64_t> sizes{hidden_.size(0), width()};
    dhidden_ = rows_.has_value() ? new_zeros(hidden_, sizes, result_dtype()) : new_empty(hidden_, sizes, result_dtype());
    if (rows_.has_value()) chunk_dhidden_ = new_empty(hidden_, {length_, width()}, result_dtype());
  }

  void want_dweight() {
    const std::vector<int64_t> sizes{vocabulary(), width()};
    dweight_ = size_ == 0 ? new_zeros(weight_, sizes, result_dtype()) : new_empty(weight_, sizes, result_dtype());
    if (result_dtype() != ScalarType::Float && size_ > 1) dweight_sum_ = new_empty(weight_, sizes, ScalarType::Float);
  }

  Tensor take_rows(int64_t first, int64_t count) const {
    if (!rows_.has_value()) return rows_view(hidden_, first, count);
    const Tensor rows = rows_view(*gathered_, 0, count);
    call_aten<Tensor>("aten::index_select", "out", hidden_, int64_t{0}, rows_view(*rows_, first, count), rows);
    return rows;
  }

  void add_dhidden(const Chunk& chunk, float alpha) {
    const Tensor out = rows_.has_value() ? rows_view(*chunk_dhidden_, 0, chunk.count)
                                         : rows_view(*dhidden_, chunk.first, chunk.count);
    if (result_dtype() == dtype()) {
      matmul(out, chunk.logits, weight_);
    } else {
      matmul_accumulate_f32(out, chunk.logits, weight_, alpha, false);
    }
    if (rows_.has_value()) {
      call_aten<Tensor>("aten::index_copy_", "", *dhidden_, int64_t{0}, rows_view(*rows_, chunk.first, chunk.count),
                        out);
    }
  }

  void add_dweight(const Chunk& chunk, float alpha) {
    if (result_dtype() != ScalarType::Float && !dweight_sum_.has_value()) {
      matmul(*dweight_, transposed(chunk.logits), chunk.hidden);
      return;
    }
    const Tensor& sum = dweight_sum_.has_value() ? *dweight_sum_ : *dweight_;
    matmul_accumulate_f32(sum, transposed(chunk.logits), chunk.hidden, alpha, chunk.first != 0);
    const bool is_last = chunk.first + chunk.count == rows_in_all_;
    if (is_last && dweight_sum_.has_value()) torch::stable::copy_(*dweight_, sum);
  }

  Tensor hidden_;
  Tensor weight_;
  OptionalTensor rows_;
  int64_t rows_in_all_ = 0;
  int64_t stride_ = 0;
  int64_t size_ = 0;
  int64_t length_ = 0;
  OptionalTensor buffer_;
  OptionalTensor gathered_;
  OptionalTensor dhidden_;
  OptionalTensor chunk_dhidden_;
  OptionalTensor dweight_;
  OptionalTensor dweight_sum_;
};

}  // namespace igf
