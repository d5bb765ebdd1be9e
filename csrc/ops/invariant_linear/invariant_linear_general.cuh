// invariant_linear on CUDA cores: f32, and 16-bit elements in rows that are not whole vectors of 16 bytes.
//
// Order    lane l of a warp adds the terms of inputs 128 i + 4 l + j in rising order of i, then j (terms that are
//          missing at the end are zeros), each by one fused multiply-add; the lanes are added by halves, the bias last.
//          The order hangs on nothing else: not on the rows a warp has at once, nor on whether it loads vectors.
// Tiles    a warp has four outputs, whose weights it reads once for all rows of its tile, 512 neighbouring bytes of
//          each f32 row at a time, two such pieces of all four outputs under way: 4 KB. A block has 16 outputs: 64
//          bytes of a row of f32 results.
#pragma once

#include "device/reductions.cuh"
#include "device/vectors.cuh"
#include "ops/invariant_linear/invariant_linear.h"

namespace igf::linear {

using namespace device;

constexpr int kGeneralWarps = 4;
constexpr int kGeneralThreads = kGeneralWarps * kWarp;
constexpr int kGeneralBlocks = 4;  // of a multiprocessor
constexpr int kWarpOutputs = 4;
constexpr int kGeneralOutputs = kGeneralWarps * kWarpOutputs;
constexpr int kLaneInputs = 4;  // neighbours
constexpr int kAhead = 2;       // 128 inputs that are asked for at once; the same for all, as a sum's last zeros are

// The lane's inputs from `input` on of one row; what lies beyond the row's end is 0.
template <typename T, bool kVectors>
IGF_DEVICE void load_inputs(float (&values)[kLaneInputs], const T* row, int64_t input,
                            int64_t inputs IGF_SITE_PARAMETER) {
  if constexpr (kVectors) {
    static_assert(kVectorLanes<T> == kLaneInputs);
    if (input < inputs) {
      load_vector(values, row + input, 0 IGF_SITE);
      return;
    }
#pragma unroll
    for (int j = 0; j < kLaneInputs; ++j) values[j] = 0.0f;
  } else {
#pragma unroll
    for (int j = 0; j < kLaneInputs; ++j) {
      values[j] = input + j < inputs ? to_float(load(row + input + j IGF_SITE)) : 0.0f;
    }
  }
}

// Where a sum waits for being written: groups of four outputs exchanged, so that neither the lanes that leave four
// outputs of each row, nor those that take two rows of 16, meet in a bank.
IGF_DEVICE int place_of_sum(int row, int output) {
  return row * kGeneralOutputs + (output / 4 ^ (row / 2 % 4)) * 4 + output % 4;
}

template <typename T, int kRows, bool kVectors>
IGF_KERNEL(kGeneralThreads, kGeneralBlocks)
invariant_linear_general(InvariantLinear a, uint32_t row_tiles) {
  IGF_SHARED_ARRAY(float, totals, kRows * kGeneralOutputs);
  const auto block = static_cast<uint32_t>(block_x());
  const int64_t tile_output = static_cast<int64_t>(block / row_tiles) * kGeneralOutputs;
  const int64_t tile_row = static_cast<int64_t>(block % row_tiles) * kRows;
  const int rows = static_cast<int>(a.rows - tile_row < kRows ? a.rows - tile_row : kRows);  // [1, kRows]
  const int lane = lane_index(), own_output = thread_x() / kWarp * kWarpOutputs;
  const int64_t first_output = tile_output + own_output;
  const int row = thread_x() / kGeneralOutputs, output = thread_x() % kGeneralOutputs;  // that the thread will write
  const bool writes = row < rows && tile_output + output < a.outputs;
  const bool adds = writes && a.bias != nullptr;
  const float bias = adds ? to_float(load(static_cast<const T*>(a.bias) + tile_output + output)) : 0.0f;
  const T* const weight = static_cast<const T*>(a.weight) + first_output * a.inputs;
  const T* const x = static_cast<const T*>(a.x) + tile_row * a.inputs;

  float sums[kRows][kWarpOutputs] = {};
  for (int64_t begin = 0; begin < a.inputs; begin += kAhead * kWarp * kLaneInputs) {
    float w[kAhead][kWarpOutputs][kLaneInputs] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
#pragma unroll
      for (int n = 0; n < kWarpOutputs; ++n) {
        const int64_t input = begin + (i * kWarp + lane) * kLaneInputs;
        if (first_output + n < a.outputs) load_inputs<T, kVectors>(w[i][n], weight + n * a.inputs, input, a.inputs);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          float terms[kLaneInputs];
          load_inputs<T, kVectors>(terms, x + r * a.inputs, begin + (i * kWarp + lane) * kLaneInputs, a.inputs);
#pragma unroll
          for (int n = 0; n < kWarpOutputs; ++n) {
#pragma unroll
            for (int j = 0; j < kLaneInputs; ++j) sums[r][n] = fmaf(terms[j], w[i][n][j], sums[r][n]);
          }
        }
      }
    }
  }
  float own = 0.0f;  // the total that this lane puts down
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int n = 0; n < kWarpOutputs; ++n) {
      const float total = warp_sum(sums[r][n]);
      if (lane == r * kWarpOutputs + n) own = total;
    }
  }
  if (lane < kRows * kWarpOutputs) {
    totals[place_of_sum(lane / kWarpOutputs, own_output + lane % kWarpOutputs)] = own;
  }
  block_barrier();  // the totals of all warps are there
  if (!writes) return;
  const float total = totals[place_of_sum(row, output)] + bias;
  const int64_t at = (tile_row + row) * a.outputs + tile_output + output;
  if (a.y_element == Element::kFloat) {
    store(static_cast<float*>(a.y) + at, total);
  } else {
    store(static_cast<T*>(a.y) + at, from_float<T>(total));
  }
}

}  // namespace igf::linear
