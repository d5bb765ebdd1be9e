// invariant_linear on the tensor cores: 16-bit weights and rows on 16 bytes.
//
// Order    chunks of 64 inputs go round among eight segments. A segment is one warp's: it adds the products of its
//          chunks in rising order, 16 inputs by one mma.m16n8k16. The block adds the eight segments' sums in turn, then
//          the bias. So the order hangs on the number of inputs alone; which tile an output and a row are in, and at
//          which place of it, decides about nothing but who works it out.
// Tiles    the weight is A (16 outputs a fragment, read as it lies), rows of x are B (8 a fragment). A block has a tile
//          of outputs and rows, whole: nothing is joined across blocks.
// Overlap  each warp has a ring of stages of its own, filled by cp.async with a step of every line, outputs first, then
//          rows: in its loop no warp waits for another one. A step is a chunk, or half of one where rows are many.
// Swizzle  a line of a step is four or eight pieces of 16 bytes. Line r has piece c at the place of c ^ turn(r), which
//          is r % 8 for eight pieces and r / 2 % 4 for four. So pieces of one number of 8 lines lie in all 32 banks, as
//          ldmatrix asks for them, and so do neighbouring ones of 128 bytes, as copies bring them.
#pragma once

#include <type_traits>

#include "device/memory.cuh"
#include "device/ptx.cuh"
#include "ops/invariant_linear/invariant_linear.h"

namespace igf::linear {

using namespace device;

constexpr int kSegments = 8;  // warps of a block
constexpr int kMmaThreads = kSegments * kWarp;
constexpr int kPiece = 8;   // elements of 16 bytes
constexpr int kChunk = 64;  // inputs

// What a block has at once. kBlocks: of a multiprocessor, for which registers must be left.
template <int kTileRows, int kTileOutputs, int kTileStep, int kTileStages, int kTileBlocks>
struct Tile {
  static constexpr int kRows = kTileRows, kOutputs = kTileOutputs, kStages = kTileStages, kBlocks = kTileBlocks;
  static constexpr int kStep = kTileStep;                    // inputs
  static constexpr int kStage = (kOutputs + kRows) * kStep;  // elements
  static constexpr int kBands = kOutputs / 16, kRowGroups = kRows / 8;
  static constexpr int kSums = kRows * kOutputs;  // of a segment
  static constexpr int kBytes = kSegments * kStages * kStage * 2;
  static_assert(kStep == kChunk || 2 * kStep == kChunk);
  static_assert(kRowGroups == 1 || kRowGroups % 2 == 0);
  static_assert(kSegments * kSums * 4 <= kBytes, "the sums take the place of the stages");
  static_assert(kSegments % kBands == 0, "a warp writes outputs of one band");
  using Sums = float[kBands][kRowGroups][4];

  // Where a piece of a line of a stage begins, in elements. Its period is 8 lines; pieces 2 q further on are at the
  // place ^ 2 q * kPiece.
  static IGF_DEVICE int place_of(int line, int piece) {
    const int turn = kStep == kChunk ? line % 8 : line / 2 % 4;
    return line * kStep + (piece ^ turn) * kPiece;
  }
};

// The steps of one segment of a tile: their copies in, their products.
template <typename T, typename Shape>
class Segment {
 public:
  // slots: kStages stages of this warp. Outputs and rows from the given ones on; those that do not exist are 0.
  IGF_DEVICE Segment(const InvariantLinear& a, T* slots, int64_t first_output, int64_t first_row)
      : slots_(slots),
        pitch_(kLines * a.inputs),
        outputs_left_(at_most(a.outputs - first_output, Shape::kOutputs) - line_),
        rows_left_(at_most(a.rows - first_row, Shape::kRows) - line_),
        inputs_left_(a.inputs - first_input()),
        weight_(static_cast<const T*>(a.weight) + (first_output + line_) * a.inputs + first_input()),
        x_(static_cast<const T*>(a.x) + (first_row + line_) * a.inputs + first_input()) {}

  // How many steps the segment has.
  static IGF_DEVICE int64_t steps(const InvariantLinear& a) {
    const int64_t chunks = (a.inputs + kChunk - 1) / kChunk;
    return (chunks + kSegments - 1 - warp()) / kSegments * (kChunk / Shape::kStep);
  }

  // Asks for the next step, in the ring's next slot, as a group of copies; an empty one where there is no step.
  IGF_DEVICE void ask(bool there_is) {
    if (there_is) {
      T* const slot = slots_ + asked_ * Shape::kStage;
      const bool inside = inputs_left_ > 0;
      copy<Shape::kOutputs>(slot, weight_, inside ? outputs_left_ : 0);
      copy<Shape::kRows>(slot + Shape::kOutputs * Shape::kStep, x_, inside ? rows_left_ : 0);
      // From the first half of a chunk to the second, else to the segment's next chunk.
      second_ = Shape::kStep < kChunk && !second_;
      const int ahead = second_ ? Shape::kStep : (kSegments - 1) * kChunk + Shape::kStep;
      inputs_left_ -= ahead;
      weight_ += ahead;
      x_ += ahead;
      asked_ = asked_ + 1 == Shape::kStages ? 0 : asked_ + 1;
    }
    ptx::cp_async_commit();
  }

  // Adds the products of the oldest step that was asked for; all lanes' copies of it have arrived.
  IGF_DEVICE void multiply(typename Shape::Sums& sums) {
    const T* const stage = slots_ + multiplied_ * Shape::kStage;
#pragma unroll
    for (int inner = 0; inner < Shape::kStep / 16; ++inner) {
      uint32_t rows[Shape::kRowGroups][2];  // 8 rows each, of 16 inputs
      load_rows(rows, stage + Shape::kOutputs * Shape::kStep, inner);
#pragma unroll
      for (int band = 0; band < Shape::kBands; ++band) {
        uint32_t weight[4];
        ptx::ldmatrix<4>(weight, stage + 16 * band * Shape::kStep + square(inner));
#pragma unroll
        for (int j = 0; j < Shape::kRowGroups; ++j) ptx::mma_m16n8k16<T>(sums[band][j], weight, rows[j]);
      }
    }
    multiplied_ = multiplied_ + 1 == Shape::kStages ? 0 : multiplied_ + 1;
  }

 private:
  static constexpr int kPieces = Shape::kStep / kPiece;  // of a line: as many lanes copy one
  static constexpr int kLines = kWarp / kPieces;         // that the warp copies at once

  static IGF_DEVICE int warp() { return thread_x() / kWarp; }
  static IGF_DEVICE int at_most(int64_t count, int most) { return static_cast<int>(count < most ? count : most); }
  static IGF_DEVICE int first_input() { return warp() * kChunk + lane_index() % kPieces * kPiece; }

  // Lines line_ + kLines i of kCount; from `left` lines on they are 0, and nothing is read.
  template <int kCount>
  IGF_DEVICE void copy(T* to, const T* from, int left) {
    const int place = Shape::place_of(line_, lane_index() % kPieces);
#pragma unroll
    for (int i = 0; i < kCount / kLines; ++i) {
      const int turned = kLines == 4 && i % 2 == 1 ? 4 * kPiece : 0;  // lines 4 to 7 of a period
      ptx::cp_async_zero_fill<16>(to + kLines * i * Shape::kStep + (place ^ turned), from, kLines * i < left ? 16 : 0);
      from += pitch_;
    }
  }

  // Where this lane points to for four matrices: lines 0-7 and 8-15 of 16 inputs' first piece, then of their second.
  static IGF_DEVICE int square(int inner) {
    return Shape::place_of(lane_index() % 16, lane_index() / 16) ^ 2 * inner * kPiece;
  }

  static IGF_DEVICE void load_rows(uint32_t (&rows)[Shape::kRowGroups][2], const T* lines, int inner) {
    if constexpr (Shape::kRowGroups == 1) {
      const int place = Shape::place_of(lane_index() % 8, lane_index() / 8 % 2) ^ 2 * inner * kPiece;
      ptx::ldmatrix<2>(rows[0], lines + place);
    } else {
#pragma unroll
      for (int j = 0; j < Shape::kRowGroups; j += 2) {
        uint32_t matrices[4];
        ptx::ldmatrix<4>(matrices, lines + 8 * j * Shape::kStep + square(inner));
        rows[j][0] = matrices[0], rows[j + 1][0] = matrices[1];
        rows[j][1] = matrices[2], rows[j + 1][1] = matrices[3];
      }
    }
  }

  const int line_ = lane_index() / kPieces;  // [0, kLines)
  T* const slots_;
  const int64_t pitch_;                 // elements from a line that this lane copies to its next one
  const int outputs_left_, rows_left_;  // of the tile, from line_ on
  int64_t inputs_left_;                 // from the lane's piece of the next step on
  const T *weight_, *x_;                // that piece
  int asked_ = 0, multiplied_ = 0;      // slots
  bool second_ = false;                 // the next step is the second half of a chunk
};

// Where the sums of a segment stand in shared memory: output by output, the row pairs of each exchanged by turn(), so
// that neither the fragments that are written, nor two rows of 16 outputs that are read, meet in a bank.
template <typename Shape>
struct Exchanged {
  static IGF_DEVICE int turn(int output) {
    constexpr int kShift = Shape::kRows >= 32 ? 0 : Shape::kRows == 16 ? 1 : 2;  // 32 banks hold that many outputs
    return (output >> 2 & 3) | (output & 3) >> kShift << 2;
  }
  static IGF_DEVICE int at(int output, int row) {
    return output * Shape::kRows + 2 * (row / 2 ^ turn(output)) + row % 2;
  }
};

template <typename Shape>
IGF_DEVICE void leave_sums(float* place, const typename Shape::Sums& sums) {
  const int g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll
  for (int band = 0; band < Shape::kBands; ++band) {
#pragma unroll
    for (int j = 0; j < Shape::kRowGroups; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* const pair = place + Exchanged<Shape>::at(16 * band + 8 * half + g, 8 * j + 2 * t);
        store(reinterpret_cast<Vector<float, 2>*>(pair),
              Vector<float, 2>{{sums[band][j][2 * half], sums[band][j][2 * half + 1]}});
      }
    }
  }
}

// A thread's share of the results: one output, and of every pair of rows that is its warp's, one row. So a warp writes
// 16 neighbouring outputs of two rows.
template <typename T, typename Shape>
class Results {
 public:
  IGF_DEVICE Results(const InvariantLinear& a, int64_t first_output, int64_t first_row)
      : a_(a), output_(first_output + column_), first_row_(first_row) {
    if (a.bias != nullptr && output_ < a.outputs && first_row + 2 * first_pair_ < a.rows) {
      bias_ = to_float(load(static_cast<const T*>(a.bias) + output_));
    }
  }

  IGF_DEVICE void write(const float* sums) const {
    if (output_ >= a_.outputs) return;
#pragma unroll
    for (int pair = first_pair_; pair < Shape::kRows / 2; pair += kSegments / Shape::kBands) {
      const int inner = 2 * pair + lane_index() / 16;
      const int64_t row = first_row_ + inner;
      if (row >= a_.rows) return;
      const float* const place = sums + Exchanged<Shape>::at(column_, inner);
      float total = load(place);
#pragma unroll
      for (int s = 1; s < kSegments; ++s) total += load(place + s * Shape::kSums);
      total += bias_;
      const int64_t at = row * a_.outputs + output_;
      if (a_.y_element == Element::kFloat) {
        store(static_cast<float*>(a_.y) + at, total);
      } else {
        store(static_cast<T*>(a_.y) + at, from_float<T>(total));
      }
    }
  }

 private:
  const InvariantLinear& a_;
  const int column_ = thread_x() / kWarp % Shape::kBands * 16 + lane_index() % 16;  // of the tile's outputs
  const int first_pair_ = thread_x() / kWarp / Shape::kBands;                       // of the tile's rows
  const int64_t output_, first_row_;
  float bias_ = 0.0f;
};

// Blocks that share outputs stand side by side, so that the second-level cache has the weight for all but the first.
template <typename T, typename Shape>
IGF_KERNEL(kMmaThreads, Shape::kBlocks)
invariant_linear_mma(InvariantLinear a, uint32_t row_tiles) {
  IGF_DYNAMIC_SHARED(bytes);
  const int warp = thread_x() / kWarp;
  const auto block = static_cast<uint32_t>(block_x());
  const int64_t first_output = static_cast<int64_t>(block / row_tiles) * Shape::kOutputs;
  const int64_t first_row = static_cast<int64_t>(block % row_tiles) * Shape::kRows;
  Segment<T, Shape> segment(a, reinterpret_cast<T*>(bytes) + warp * Shape::kStages * Shape::kStage, first_output,
                            first_row);
  const int64_t steps = segment.steps(a);
#pragma unroll
  for (int s = 0; s < Shape::kStages - 1; ++s) segment.ask(s < steps);
  const Results<T, Shape> results(a, first_output, first_row);  // the bias is asked for while the weight is on its way

  typename Shape::Sums sums = {};
  for (int64_t step = 0; step < steps; ++step) {
    ptx::cp_async_wait<Shape::kStages - 2>();
    warp_barrier();  // every lane's copies of this step are there, and all lanes have read the slot that is filled next
    segment.ask(step + Shape::kStages - 1 < steps);
    segment.multiply(sums);
  }
  float* const left = reinterpret_cast<float*>(bytes);
  block_barrier();  // all warps have read their stages, in whose place the sums go
  leave_sums<Shape>(left + warp * Shape::kSums, sums);
  block_barrier();  // the sums of all segments are there
  results.write(left);
}

}  // namespace igf::linear
