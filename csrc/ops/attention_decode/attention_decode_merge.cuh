// From the warps' sums to the result: joined in a block by shared memory, across the blocks of a unit by global memory.
//
// A warp leaves, for each query, the largest score it has met, the sum of power((score - largest) * factor), and that sum
// with the values. Blocks that share a unit leave the same of all their warps; the last one to arrive joins these. Every
// sum is added in a fixed order: equal inputs give equal bits, whoever comes last.
//
// Partials: [units, tile, splits, 2] largest scores and totals, then, on 128 bytes, [units, splits, tile, width] sums.
#pragma once

#include "device/last_block.cuh"
#include "device/online_softmax.cuh"
#include "ops/attention_decode/attention_decode_rows.cuh"

namespace igf::decode {

// What the warps of a block leave, in shared memory. Place::at(row, d) is where a query's sum of element d lies.
struct WarpSums {
  float* sums;    // [kWarps][rows * width]; afterwards the weights of splits
  float* tops;    // [kWarps][rows]
  float* totals;  // [kWarps][rows]
};

// power(u) has u in these units: u = (score - top) * factor.
template <typename T>
IGF_DEVICE float factor_of(const Launch& a) {
  return a.call.shape.scale / kNatsPerUnit<T>;
}

// Every element of a row that cannot be served.
template <typename T>
IGF_DEVICE void give_nan(const Launch& a, const Work& work) {
  const int width = static_cast<int>(a.call.shape.width);
  for (int i = 0; i < work.queries; ++i) {
    T* const out = out_at<T>(a, work, i);
    for (int d = thread_x(); d < width; d += kThreads) store(out + d, from_float<T>(__builtin_nanf("")));
  }
}

// The places of what the splits of a unit leave. item: query * width + element.
struct Partials {
  Vector<float, 2>* statistics;
  float* sums;
  int64_t splits, split_sums;

  IGF_DEVICE Partials(const Launch& a, const Work& work, int width)
      : statistics(reinterpret_cast<Vector<float, 2>*>(a.partials) + work.unit * a.splits * a.tile),
        sums(a.partials + a.partial_sums + work.unit * a.splits * a.tile * width),
        splits(a.splits),
        split_sums(a.tile * width) {}

  IGF_DEVICE Vector<float, 2>* statistic(int query, int split) const { return statistics + query * splits + split; }
  IGF_DEVICE float* sum(int split, int item) const { return sums + split * split_sums + item; }
};

// The weights that the splits' sums have in the result, [query * active + split]: a query a warp at a time.
template <typename T>
IGF_DEVICE void weigh(const Partials& partials, const Work& work, int active, float factor,
                      float* weights) {
  const int lane = lane_index();
  for (int i = thread_x() / kWarp; i < work.queries; i += kWarps) {
    float* const mine = weights + i * active;
    float top = -math::kInfinity, total = 0.0f;
    for (int s = lane; s < active; s += kWarp) {  // [0, active)
      const Vector<float, 2> left = load_shared_by_blocks(partials.statistic(i, s));
      const float higher = fmaxf(top, left.lanes[0]);
      total = total * power<T>((top - base_of(higher)) * factor) +
              left.lanes[1] * power<T>((left.lanes[0] - base_of(higher)) * factor);
      top = higher;
      mine[s] = left.lanes[0];
    }
    const float highest = base_of(warp_max(top));
    const float share = 1.0f / warp_sum(total * power<T>((top - highest) * factor));
    for (int s = lane; s < active; s += kWarp) mine[s] = power<T>((mine[s] - highest) * factor) * share;
  }
}

// By the last block of a unit.
template <typename T>
IGF_DEVICE void join_splits(const Launch& a, const Work& work, int active, int width,
                            float* weights) {
  const Partials partials(a, work, width);
  weigh<T>(partials, work, active, factor_of<T>(a), weights);
  block_barrier();  // the weights are set
  for (int item = thread_x(); item < work.queries * width; item += kThreads) {  // query and element
    const int i = item / width;
    float sum = 0.0f;
#pragma unroll 8
    for (int s = 0; s < active; ++s) {
      sum += weights[i * active + s] * load_shared_by_blocks(partials.sum(s, item));
    }
    store(out_at<T>(a, work, i) + item % width, from_float<T>(sum));
  }
}

// Every thread of the block, after its warp has left its sums.
template <typename T, int kRows, typename Place>
IGF_DEVICE void finish(const Launch& a, const Work& work, int active, int width,
                       const WarpSums& warps) {
  const float factor = factor_of<T>(a);
  const Partials partials(a, work, width);
  block_barrier();  // all warps have left their sums
  for (int item = thread_x(); item < work.queries * width; item += kThreads) {  // query and element
    const int i = item / width, d = item % width;
    float top = -math::kInfinity, total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, warps.tops[w * kRows + i]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = power<T>((warps.tops[w * kRows + i] - base_of(top)) * factor);
      total += weight * warps.totals[w * kRows + i];
      sum += weight * warps.sums[w * kRows * width + Place::at(i, d, width)];
    }
    if (active == 1) {
      store(out_at<T>(a, work, i) + d, from_float<T>(sum / total));
    } else {
      store(partials.sum(work.split, item), sum);
      if (d == 0) store(partials.statistic(i, work.split), Vector<float, 2>{{top, total}});
    }
  }
  if (active > 1 && is_last_block(a.arrivals + work.unit, static_cast<uint32_t>(active))) {
    join_splits<T>(a, work, active, width, warps.sums);
  }
}

}  // namespace igf::decode
