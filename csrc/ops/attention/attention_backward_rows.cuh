// What comes before and after the tiles of a backward pass on a GPU, by rows of queries; and the workspace between.
//
//   prepare_backward()   delta = rowsum(dout * out), lse for exp2, zeros where dq is summed, counters at 0
//   the tiles            attention_mma_backward_cuda.cu, attention_hopper_backward_cuda.cu: add to dq's sums
//   finish_backward()    dq = T(scale * sum)
//
// Workspace. Queries come in slots of tile_rows rows (attention_sequences.cuh); tile = head * slots + slot. Slots that
// hold no tile are left as they were, and nobody looks at them.
//   dq_sum [tile][row group][column group][4][32]   f32. A group is 16 rows by 8 columns, as one warp holds a product
//          (mma's fragment: value r of lane l is row l / 4 + r / 2 * 8, column l % 4 * 2 + r % 2), so that an addition
//          of a warp is 128 contiguous bytes, and the tile one contiguous run for a bulk addition.
//   lse2, delta [tile][tile_rows]   f32, each tile on 64 bytes. lse2 = log2(e) * lse, so p = exp2(log2(e) * s - lse2).
//          Rows beyond the sequence, and queries that see no key, have lse2 = +infinity and p = 0; beyond, delta = 0.
//   counters [tile]   u32, 0: for the deterministic order, how many tiles of keys have been added to a tile's dq_sum
//   ticket            u32, 0: for the same, how many blocks have begun
//
// Work: one multiplication and addition an element of out. Memory, with W = heads * width, each once: prepare reads
// 2 * 2 W + 4 heads bytes a row and writes 4 W + 8 heads; finish reads 4 W and writes 2 W. At long sequences both
// vanish beside the tiles. Numbers: f32; sums in a fixed order. Limits: bound by memory; width a multiple of 16 (blocks
// read and write whole sectors), bf16 and f16, rows on 16 bytes. Not measured on a GPU.
// Source: Dao et al. 2022, arXiv:2205.14135, appendix B.2 (delta).
#pragma once

#include <cmath>

#include "device/fast_math.cuh"
#include "device/launch.cuh"
#include "device/reductions.cuh"
#include "device/vectors.cuh"
#include "ops/attention/attention_cuda.h"
#include "ops/attention/attention_sequences.cuh"

namespace igf::attention {

using device::kLog2E;

struct BackwardWorkspace {
  float* dq_sum;
  float* lse2;
  float* delta;
  uint32_t* counters;
  uint32_t* ticket;
  int64_t slots;  // of query tiles, a head
  int tile_rows;  // a multiple of 16
};

// Bytes of workspace; the call's pointers are not looked at.
inline int64_t backward_workspace_bytes(const AttentionBackwardCall& call, int tile_rows) {
  const int64_t slots = tile_slots(call.batch, call.batch.q_rows, call.batch.q_length, tile_rows);
  const int64_t tiles = call.shape.heads * slots;
  return (tiles * tile_rows * (call.shape.width + 2) + tiles + 1) * static_cast<int64_t>(sizeof(float));
}

inline BackwardWorkspace backward_workspace(const AttentionBackwardCall& call, int tile_rows) {
  const int64_t slots = tile_slots(call.batch, call.batch.q_rows, call.batch.q_length, tile_rows);
  const int64_t tiles = call.shape.heads * slots, rows = tiles * tile_rows;
  float* const dq_sum = static_cast<float*>(call.workspace);
  float* const lse2 = dq_sum + rows * call.shape.width;
  float* const delta = lse2 + rows;
  uint32_t* const counters = reinterpret_cast<uint32_t*>(delta + rows);
  return {dq_sum, lse2, delta, counters, counters + tiles, slots, tile_rows};
}

namespace backward_rows {

using namespace device;

constexpr int kThreads = 128;
constexpr int kLanes = 8;  // that share a row: 128 bytes of it at a time
constexpr int kRowsAtOnce = kThreads / kLanes;
constexpr int kGroupRows = 16, kGroupColumns = 8;  // of dq_sum
constexpr int kHalfGroup = kGroupRows / 2;

template <typename T, typename Void>
IGF_DEVICE T* row_of(const AttentionView<Void>& view, int64_t row, int64_t head) {
  return static_cast<T*>(view.data) + row * view.row_stride + head * view.head_stride;
}

// The caller's lanes' part of out[row] . dout[row].
template <typename T>
IGF_DEVICE float dot_part(const T* out, const T* dout, int width, int lane IGF_SITE_PARAMETER) {
  float sum = 0;
  for (int v = lane; v < width / kVectorLanes<T>; v += kLanes) {  // [0, width / 8)
    float a[kVectorLanes<T>], b[kVectorLanes<T>];
    load_vector(a, out, v IGF_SITE);
    load_vector(b, dout, v IGF_SITE);
#pragma unroll
    for (int i = 0; i < kVectorLanes<T>; ++i) sum += a[i] * b[i];
  }
  return sum;
}

// Block: one tile of queries of one head.
template <typename T>
IGF_KERNEL(kThreads) attention_backward_prepare(AttentionBackwardCall call, BackwardWorkspace work) {
  const int64_t slot = block_x() / call.shape.heads, head = block_x() % call.shape.heads;
  const int64_t tile = head * work.slots + slot;
  if (block_x() == 0 && thread_x() == 0) store(work.ticket, 0u);
  const SequenceTile at = tile_of_slot<false>(call.batch, slot, work.tile_rows);
  const int first = at.tile * work.tile_rows;
  if (first >= at.q_count) return;
  if (thread_x() == 0) store(work.counters + tile, 0u);

  const int lane = thread_x() % kLanes;
  for (int r = thread_x() / kLanes; r < work.tile_rows; r += kRowsAtOnce) {  // all lanes of a warp go around together
    const bool inside = first + r < at.q_count;
    const int64_t row = at.q_begin + first + r;
    float sum = 0;
    if (inside) {
      sum = dot_part(row_of<const T>(call.out, row, head), row_of<const T>(call.dout, row, head),
                     static_cast<int>(call.shape.width), lane);
    }
#pragma unroll
    for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane == 0) store(work.delta + tile * work.tile_rows + r, sum);
  }
  for (int r = thread_x(); r < work.tile_rows; r += kThreads) {
    const int64_t row = at.q_begin + first + r;
    const float lse = first + r < at.q_count ? load(call.lse + head * call.batch.q_rows + row) : -INFINITY;
    store(work.lse2 + tile * work.tile_rows + r, lse == -INFINITY ? INFINITY : lse * kLog2E);
  }

  const int floats = work.tile_rows * static_cast<int>(call.shape.width);
  float* const sums = work.dq_sum + tile * floats;
  const float zeros[4] = {0, 0, 0, 0};
  for (int i = thread_x(); i < floats / 4; i += kThreads) store_floats<4>(sums, i, zeros);
}

// The same block. A thread turns eight lanes' worth of a group into 8 columns of rows g and g + 8.
template <typename T>
IGF_KERNEL(kThreads) attention_backward_finish(AttentionBackwardCall call, BackwardWorkspace work) {
  const int64_t slot = block_x() / call.shape.heads, head = block_x() % call.shape.heads;
  const SequenceTile at = tile_of_slot<false>(call.batch, slot, work.tile_rows);
  const int first = at.tile * work.tile_rows;
  if (first >= at.q_count) return;
  const int width = static_cast<int>(call.shape.width), column_groups = width / kGroupColumns;
  const float* const sums = work.dq_sum + (head * work.slots + slot) * work.tile_rows * width;
  const int pieces = work.tile_rows / kGroupRows * column_groups * kHalfGroup;
  for (int piece = thread_x(); piece < pieces; piece += kThreads) {
    const int group = piece / kHalfGroup, g = piece % kHalfGroup;
    const int columns = group % column_groups * kGroupColumns;
    const auto* const quads = reinterpret_cast<const Packed<float>*>(sums + group * kGroupRows * kGroupColumns);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Packed<float> even = load_once(quads + half * 16 + g), odd = load_once(quads + half * 16 + 8 + g);
      const int row = first + group / column_groups * kGroupRows + half * kHalfGroup + g;
      if (row >= at.q_count) continue;
      float values[kVectorLanes<T>];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[2 * i] = call.shape.scale * even.lanes[i];
        values[2 * i + 1] = call.shape.scale * odd.lanes[i];
      }
      store_vector(row_of<T>(call.dq, at.q_begin + row, head), columns / kVectorLanes<T>, values);
    }
  }
}

}  // namespace backward_rows

// Before and after the tiles; T: the call's element. Neither launches anything when there are no queries. Static, as
// the kernels are: see IGF_KERNEL in simt/device/words.h.
template <typename T>
static void prepare_backward(const AttentionBackwardCall& call, const BackwardWorkspace& work,
                             const DeviceContext& context) {
  const int64_t blocks = call.shape.heads * work.slots;
  if (blocks == 0) return;
  device::launch("attention_backward_prepare", &backward_rows::attention_backward_prepare<T>,
                 {blocks, 1, backward_rows::kThreads, 1}, context, call, work);
}

template <typename T>
static void finish_backward(const AttentionBackwardCall& call, const BackwardWorkspace& work,
                            const DeviceContext& context) {
  const int64_t blocks = call.shape.heads * work.slots;
  if (blocks == 0) return;
  device::launch("attention_backward_finish", &backward_rows::attention_backward_finish<T>,
                 {blocks, 1, backward_rows::kThreads, 1}, context, call, work);
}

}  // namespace igf::attention
