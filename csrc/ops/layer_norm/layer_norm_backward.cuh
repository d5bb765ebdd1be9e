// The backward kernels of layer normalisation; see layer_norm_cuda.cu for what they move and compute.
#pragma once

#include "device/ptx.cuh"
#include "ops/layer_norm/layer_norm_forward.cuh"

namespace igf {
namespace layer_norm {

constexpr int kColumnThreads = 32;  // columns a block of the last kernel adds up ...
constexpr int kSliceThreads = 32;   // ... and in how many slices it does

// Rows of one block: as many warps as leave each the registers for its share of dweight and dbias.
template <int kThreads, int kVectors>
constexpr int kBackwardRows = kThreads != kWarp ? 512 / kThreads : kVectors <= 3 ? 16 : kVectors == 4 ? 12 : 8;

// Sums over the kThreads threads of a row, in every thread; the rows of a block do not wait for each other.
// scratch: kCount * kThreads / 32 values of shared memory of the row's own.
template <int kThreads, typename Sum, int kCount>
IGF_DEVICE void group_sum(Sum (&values)[kCount], Sum* scratch IGF_SITE_PARAMETER) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = warp_sum(values[i] IGF_SITE);
  if constexpr (kThreads > kWarp) {
    constexpr int kWarps = kThreads / kWarp;
    const int barrier = 1 + thread_y();  // [1, 512 / kThreads]
    const int warp = thread_x() / kWarp;  // [0, kWarps)
    if (thread_x() % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) scratch[i * kWarps + warp] = values[i];
    }
    ptx::named_barrier_sync(barrier, kThreads IGF_SITE);  // every warp's sum is in scratch
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = scratch[i * kWarps];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) values[i] += scratch[i * kWarps + w];
    }
    ptx::named_barrier_sync(barrier, kThreads IGF_SITE);  // scratch has been read and may be written again
  }
}

// What the gradient of a row is made of.
template <typename T, int kThreads, int kVectors>
struct HeldRow {
  static constexpr int kLanes = kVectorLanes<T>;
  Words dy[kVectors];
  Words s[kVectors];
  Words dsummed[kVectors];
  float mean;
  float rstd;

  IGF_DEVICE void load_all(const LayerNormBackward& a, int64_t row, int vectors) {
    load_row<kThreads>(dy, a.dy, row, vectors);
    load_row<kThreads>(s, a.summed, row, vectors);
    load_row<kThreads>(dsummed, a.dsummed, row, vectors);
    mean = load(a.mean + row);
    rstd = load(a.rstd + row);
  }

  // c: s - mean in the columns of vector v; d: dy there.
  IGF_DEVICE void columns(float (&c)[kLanes], float (&d)[kLanes], int v) const {
    unpack_held<T>(c, s[v]);
    unpack_held<T>(d, dy[v]);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) c[i] -= mean;
  }
};

// sum + d n, with n = c rstd; for f32 with what rounding n took away.
template <typename T>
IGF_DEVICE float with_product(float sum, float d, float c, float rstd) {
  const float n = c * rstd;
  if constexpr (sizeof(T) == 4) sum = fmaf(d, fmaf(c, rstd, -n), sum);
  return fmaf(d, n, sum);
}

// Adds up the rows of a block, one after the other so that the order is always the same, and stores quad by quad.
// sums: of the first row; the others lie staged_floats<kLanes>(width) apart.
template <int kLanes, int kThreads, int kRows>
IGF_DEVICE void store_partial_row(float* partial, StagedColumns<kLanes> sums, int width IGF_SITE_PARAMETER) {
#pragma unroll 1
  for (int quad = thread_index(); quad < width / 4; quad += kThreads) {  // [0, width / 4)
    StagedColumns<kLanes> row = sums;
    Packed<float> total = load(row.place(quad) IGF_SITE);
    for (int other = 1; other < kRows; ++other) {
      row.base += staged_floats<kLanes>(width);
      const Packed<float> more = load(row.place(quad) IGF_SITE);
#pragma unroll
      for (int i = 0; i < 4; ++i) total.lanes[i] += more.lanes[i];
    }
    store(reinterpret_cast<Packed<float>*>(partial) + quad, total IGF_SITE);
  }
}

// Blocks walk over rows; partials[0][block] and partials[1][block] receive the block's sums of dy * n and of dy.
template <typename T, int kThreads, int kVectors>
IGF_KERNEL(kThreads * (kBackwardRows<kThreads, kVectors>))
layer_norm_backward_rows(LayerNormBackward a) {
  constexpr int kLanes = kVectorLanes<T>;
  constexpr int kRows = kBackwardRows<kThreads, kVectors>;
  IGF_DYNAMIC_SHARED(staged);  // weight, then one row of sums for each row of the block
  IGF_SHARED_ARRAY(RowSum<T>, scratch, kRows * 2 * kThreads / kWarp);
  const int width = static_cast<int>(a.width);
  const int vectors = width / kLanes;
  const int plane = static_cast<int>(staged_plane<kLanes>(width));
  const StagedColumns<kLanes> weight{reinterpret_cast<float*>(staged), plane};
  const StagedColumns<kLanes> block_sums{weight.base + staged_floats<kLanes>(width), plane};
  const int64_t step = grid_x() * kRows;
  float dweight[kVectors][kLanes];
  float dbias[kVectors][kLanes];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) dweight[v][i] = dbias[v][i] = 0.0f;
  }

  HeldRow<T, kThreads, kVectors> held;
  int64_t row = block_x() * kRows + thread_y();  // [0, rows) where it is used
  if (row < a.rows) held.load_all(a, row, vectors);  // on its way while the weight is staged
#pragma unroll 1
  for (int quad = thread_index(); quad < width / 4; quad += kThreads * kRows) {  // [0, width / 4)
    store(weight.place(quad), column_quad<T>(a.weight, a.weight_element, quad));
  }
  block_barrier();  // the weight is staged

  while (row < a.rows) {
    Share<T> along_share;  // of the sum of g * n; g = dy * weight
    Share<T> level_share;  // of the sum of g
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = thread_x() + v * kThreads;  // [0, vectors), in vectors
      if (column >= vectors) continue;
      float c[kLanes];
      float d[kLanes];
      float scale[kLanes];
      held.columns(c, d, v);
      weight.get(scale, column);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        dweight[v][i] = with_product<T>(dweight[v][i], d[i], c[i], held.rstd);
        dbias[v][i] += d[i];
        along_share.add_product(d[i] * scale[i], c[i] * held.rstd);
        level_share.add_product(d[i], scale[i]);
      }
    }
    RowSum<T> sums[2] = {along_share.value(), level_share.value()};
    group_sum<kThreads>(sums, scratch + thread_y() * (2 * kThreads / kWarp));
    const float along = static_cast<float>(sums[0]) / static_cast<float>(width);
    const float level = static_cast<float>(sums[1]) / static_cast<float>(width);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = thread_x() + v * kThreads;
      if (column >= vectors) continue;
      float c[kLanes];
      float g[kLanes];
      float scale[kLanes];
      float extra[kLanes];
      held.columns(c, g, v);
      weight.get(scale, column);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        g[i] = held.rstd * fmaf(-(c[i] * held.rstd), along, fmaf(g[i], scale[i], -level));
      }
      if (a.dsummed != nullptr) {
        unpack_held<T>(extra, held.dsummed[v]);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) g[i] += extra[i];
      }
      store_vector(static_cast<T*>(a.dx), row * vectors + column, g);
    }
    row += step;
    if (row < a.rows) held.load_all(a, row, vectors);
  }

  const StagedColumns<kLanes> own{block_sums.base + thread_y() * staged_floats<kLanes>(width), plane};
#pragma unroll
  for (int which = 0; which < 2; ++which) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = thread_x() + v * kThreads;
      if (column < vectors) own.put(column, which == 0 ? dweight[v] : dbias[v]);
    }
    block_barrier();  // the sums of every row of the block are in shared memory
    float* const partial = a.partials + (which * grid_x() + block_x()) * a.width;
    store_partial_row<kLanes, kThreads * kRows, kRows>(partial, block_sums, width);
    if (which == 0) block_barrier();  // they have been read and may be written again
  }
}

// The same for any width and alignment; each thread owns columns of the block's partial rows and adds to them in place.
template <typename T>
IGF_KERNEL(kAnyWidthThreads)
layer_norm_backward_any_width(LayerNormBackward a) {
  IGF_SHARED_ARRAY(RowSum<T>, scratch, 2 * kAnyWidthThreads / kWarp);
  float* const weight_partial = a.partials + block_x() * a.width;
  float* const bias_partial = a.partials + (grid_x() + block_x()) * a.width;
  for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
    store(weight_partial + i, 0.0f);
    store(bias_partial + i, 0.0f);
  }
  for (int64_t row = block_x(); row < a.rows; row += grid_x()) {  // [0, rows)
    const int64_t first = row * a.width;
    const T* const dy = static_cast<const T*>(a.dy) + first;
    const T* const s = static_cast<const T*>(a.summed) + first;
    const float mean = load(a.mean + row);
    const float rstd = load(a.rstd + row);
    Share<T> along_share;  // of the sum of g * n; g = dy * weight
    Share<T> level_share;  // of the sum of g
    for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
      const float c = to_float(load(s + i)) - mean;
      const float d = to_float(load(dy + i));
      const float weight = parameter_at<T>(a.weight, a.weight_element, i);
      store(weight_partial + i, with_product<T>(load(weight_partial + i), d, c, rstd));
      store(bias_partial + i, load(bias_partial + i) + d);
      along_share.add_product(d * weight, c * rstd);
      level_share.add_product(d, weight);
    }
    RowSum<T> sums[2] = {along_share.value(), level_share.value()};
    row_sum<kAnyWidthThreads>(sums, scratch);
    const float along = static_cast<float>(sums[0]) / static_cast<float>(a.width);
    const float level = static_cast<float>(sums[1]) / static_cast<float>(a.width);
    for (int64_t i = thread_x(); i < a.width; i += kAnyWidthThreads) {
      const float n = (to_float(load(s + i)) - mean) * rstd;
      const float weight = parameter_at<T>(a.weight, a.weight_element, i);
      float dx = rstd * fmaf(-n, along, fmaf(to_float(load(dy + i)), weight, -level));
      if (a.dsummed != nullptr) dx += to_float(load_once(static_cast<const T*>(a.dsummed) + first + i));
      store(static_cast<T*>(a.dx) + first + i, from_float<T>(dx));
    }
  }
}

// Adds the partial rows of dweight (block_y = 0) and dbias (block_y = 1), column by column: each slice of threads
// every kSliceThreads-th row, then the slices.
template <typename W>
IGF_KERNEL(kColumnThreads * kSliceThreads)
layer_norm_add_partials(LayerNormBackward a, int64_t partial_rows) {
  IGF_SHARED_ARRAY(float, slices, kSliceThreads * kColumnThreads);
  const int64_t column = block_x() * kColumnThreads + thread_x();  // [0, width) where it is used
  const float* const partial = a.partials + block_y() * partial_rows * a.width;
  float sum = 0.0f;
  if (column < a.width) {
    for (int64_t row = thread_y(); row < partial_rows; row += kSliceThreads) {  // [0, partial_rows)
      sum += load_once(partial + row * a.width + column);
    }
  }
  slices[thread_y() * kColumnThreads + thread_x()] = sum;
  block_barrier();  // all slices are in shared memory
  if (thread_y() != 0 || column >= a.width) return;
  float total = 0.0f;
#pragma unroll
  for (int slice = 0; slice < kSliceThreads; ++slice) total += slices[slice * kColumnThreads + thread_x()];
  store(static_cast<W*>(block_y() == 0 ? a.dweight : a.dbias) + column, from_float<W>(total));
}

}  // namespace layer_norm
}  // namespace igf
