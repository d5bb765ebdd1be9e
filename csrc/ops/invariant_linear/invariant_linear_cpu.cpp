// invariant_linear on the CPU: dot products along the inputs, in tiles of a few rows and outputs that share loads.
//
// The order of a sum: inputs are cut into blocks (block_inputs); in a block, lane l of sixteen adds the terms l,
// l + 16, l + 32, ... in turn (terms that are missing at the end of the inputs are zeros); the lanes are added in the order of
// cpu/lanes.h, the blocks' sums in turn, the bias last. Which tile computes a sum, and beside which others, changes
// nothing of that.
//
// Memory: for few rows the weight is read once, as it lies in memory. For many, rows and outputs are cut into tasks
// whose data stay in the caches, and a 16-bit weight is widened once a task.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "ops/invariant_linear/invariant_linear.h"

namespace igf {
namespace {

// Inputs that are summed in one piece, at most: of eight rows and four outputs they fit into a first-level cache.
constexpr int64_t kBlockInputs = 1024;
// At most so many rows count as few.
constexpr int64_t kFewRows = 16;
// A task's outputs where there are many rows, and where there are few.
constexpr int64_t kTaskOutputs = 32, kFewTaskOutputs = 16;
// A task has so many numbers of x that they stay in a second-level cache, in so many rows.
constexpr int64_t kTaskNumbers = 3 << 16, kLeastTaskRows = 64, kMostTaskRows = 256;
// Rows that are swept together over the outputs: of many, so many that they stay in a first-level cache; all of up to
// kSweptAtOnce, where the time counts that the weights take to come.
constexpr int64_t kSweepRows = 8, kSweptAtOnce = 64;
// Products worth a thread's start.
constexpr int64_t kGrainProducts = 1 << 16;

// How many inputs a block has; the last may have fewer.
int64_t block_inputs(int64_t inputs) {
  const int64_t blocks = std::max<int64_t>(1, ceil_div(inputs, kBlockInputs));
  return std::max<int64_t>(kLanes, ceil_div(ceil_div(inputs, blocks), kLanes) * kLanes);
}

// Some rows, some outputs and a block of inputs, whose products are added to sums[m * pitch + n].
template <typename T>
struct Sweep {
  const float* x;
  const T* weight;
  float* sums;
  int64_t x_stride, weight_stride, pitch;
  int64_t rows, outputs, inputs;
  const T* next;  // what is read of the weight after these outputs
};

// Asks for weights that are needed soon, so that they come while others are worked on: a processor's own guesses stop
// at every page and at every row's end. Tiles of several rows are so slow that the next outputs' weights are in time; with
// one row, those some inputs on. Of the OUTPUTS next ones, those from `first` on are asked for, FETCHED of them.
template <int OUTPUTS, int FETCHED, typename T>
IGF_INLINE void fetch_ahead(const Sweep<T>& s, int64_t output, int64_t first, int64_t k) {
  const int64_t ahead = OUTPUTS < kLanes ? s.inputs : std::min<int64_t>(s.inputs, 4 * kLanes);
  const T* here = s.weight + output * s.weight_stride;
  const T* next = output + OUTPUTS < s.outputs ? here + OUTPUTS * s.weight_stride : s.next;
  const T* from = k + ahead < s.inputs ? here : next;
  const int64_t offset = k + ahead < s.inputs ? k + ahead : k + ahead - s.inputs;
#pragma GCC unroll 16
  for (int n = 0; n < FETCHED; ++n) {
    // As a number: a pointer may not go beyond the weight's end, a fetch may.
    const auto place = static_cast<uintptr_t>((offset + (first + n) * s.weight_stride) * static_cast<int64_t>(sizeof(T)));
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + place));
  }
}

template <int COUNT>
IGF_INLINE void add(const float* from, float* to) {
  typedef float Some __attribute__((vector_size(COUNT * sizeof(float))));
  Some a, b;
  std::memcpy(&a, from, sizeof a);
  std::memcpy(&b, to, sizeof b);
  b += a;
  std::memcpy(to, &b, sizeof b);
}

template <int ROWS, int OUTPUTS, int FETCHED, typename T>
IGF_INLINE void tile(const Sweep<T>& s, int64_t row, int64_t output, int64_t first = 0) {
  const float* x = s.x + row * s.x_stride;
  const T* weight = s.weight + output * s.weight_stride;
  Lanes sums[ROWS * OUTPUTS] = {};
  int64_t k = 0;
  for (; k + kLanes <= s.inputs; k += kLanes) {
    if constexpr (FETCHED > 0) fetch_ahead<OUTPUTS, FETCHED>(s, output, first, k);
    Lanes w[OUTPUTS];
#pragma GCC unroll 16
    for (int n = 0; n < OUTPUTS; ++n) load(weight + n * s.weight_stride + k, w[n]);
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; ++m) {
      Lanes a;
      load(x + m * s.x_stride + k, a);
#pragma GCC unroll 16
      for (int n = 0; n < OUTPUTS; ++n) sums[m * OUTPUTS + n] += a * w[n];
    }
  }
  if (k < s.inputs) {
    Lanes w[OUTPUTS];
#pragma GCC unroll 16
    for (int n = 0; n < OUTPUTS; ++n) load_some(weight + n * s.weight_stride + k, s.inputs - k, w[n]);
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; ++m) {
      Lanes a;
      load_some(x + m * s.x_stride + k, s.inputs - k, a);
#pragma GCC unroll 16
      for (int n = 0; n < OUTPUTS; ++n) sums[m * OUTPUTS + n] += a * w[n];
    }
  }
  sum_lanes(sums);
  alignas(64) float results[kLanes];
  std::memcpy(results, &sums[0], sizeof results);
  float* to = s.sums + row * s.pitch + output;
#pragma GCC unroll 16
  for (int m = 0; m < ROWS; ++m) add<OUTPUTS>(results + m * OUTPUTS, to + m * s.pitch);
}

// Four outputs, or one, of `fours` rows. Each tile asks for its share of the next weights: asked for by the first tile
// alone, they would come while it waits for them, and none while the others work.
template <int OUTPUTS, bool FETCH, typename T>
IGF_INLINE void sweep_fours(const Sweep<T>& s, int64_t fours, int64_t output) {
  for (int64_t row = 0; row < fours; row += 4) {
    const int64_t first = FETCH ? row * OUTPUTS / fours : 0, last = FETCH ? (row + 4) * OUTPUTS / fours : 0;
    switch (last - first) {
      case 0: tile<4, OUTPUTS, 0>(s, row, output); break;
      case 1: tile<4, OUTPUTS, 1>(s, row, output, first); break;
      case 2: tile<4, OUTPUTS, std::min(OUTPUTS, 2)>(s, row, output, first); break;
      default: tile<4, OUTPUTS, OUTPUTS>(s, row, output, first); break;
    }
  }
}

// Outputs [output, output + OUTPUTS) of every row.
template <int OUTPUTS, bool FETCH, typename T>
IGF_INLINE void sweep_column(const Sweep<T>& s, int64_t output) {
  constexpr int kFour = OUTPUTS < 4 ? OUTPUTS : 4, kEight = OUTPUTS < 8 ? OUTPUTS : 8;
  const int64_t fours = s.rows / 4 * 4;
  for (int64_t n = 0; n < OUTPUTS && fours > 0; n += kFour) sweep_fours<kFour, FETCH>(s, fours, output + n);
  int64_t row = fours;
  if (row + 2 <= s.rows) {
    for (int64_t n = 0; n < OUTPUTS; n += kEight) {
      if (fours > 0) {
        tile<2, kEight, 0>(s, row, output + n);
      } else {
        tile<2, kEight, FETCH ? kEight : 0>(s, row, output + n);
      }
    }
    row += 2;
  }
  if (row == s.rows) return;
  if (row > 0) {
    tile<1, OUTPUTS, 0>(s, row, output);
  } else {
    tile<1, OUTPUTS, FETCH ? OUTPUTS : 0>(s, row, output);
  }
}

template <bool FETCH, typename T>
IGF_INLINE void sweep_body(const Sweep<T>& s) {
  int64_t output = 0;
  for (; output + kLanes <= s.outputs; output += kLanes) sweep_column<kLanes, FETCH>(s, output);
  for (; output < s.outputs; ++output) sweep_column<1, FETCH>(s, output);
}

template <typename T>
IGF_INLINE void widen_body(const T* from, int64_t stride, int64_t rows, int64_t inputs, float* to, int64_t to_stride) {
  for (int64_t m = 0; m < rows; ++m) {
    const T* row = from + m * stride;
    float* wide = to + m * to_stride;
    int64_t k = 0;
    for (; k + kLanes <= inputs; k += kLanes) {
      Lanes lanes;
      load(row + k, lanes);
      std::memcpy(wide + k, &lanes, sizeof lanes);
    }
    for (; k < inputs; ++k) wide[k] = static_cast<float>(row[k]);
  }
}

// y = sums + bias.
template <typename T, typename Y>
IGF_INLINE void finish_body(const float* sums, const T* bias, Y* y, int64_t count) {
  if (bias == nullptr) {
    for (int64_t n = 0; n < count; ++n) y[n] = Y(sums[n]);
  } else {
    for (int64_t n = 0; n < count; ++n) y[n] = Y(sums[n] + static_cast<float>(bias[n]));
  }
}

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_LINEAR_FINISH(T, Y)                                                                              \
  IGF_CLONES void finish(const float* __restrict sums, const T* __restrict bias, Y* __restrict y, int64_t count) { \
    finish_body(sums, bias, y, count);                                                                       \
  }
#define IGF_LINEAR_LOOPS(T)                                                                                      \
  IGF_CLONES void sweep(const Sweep<T>& s, bool fetch) { fetch ? sweep_body<true>(s) : sweep_body<false>(s); }   \
  IGF_CLONES void widen(const T* from, int64_t stride, int64_t rows, int64_t inputs, float* to, int64_t to_stride) { \
    widen_body(from, stride, rows, inputs, to, to_stride);                                                       \
  }                                                                                                              \
  IGF_LINEAR_FINISH(T, float)
IGF_LINEAR_LOOPS(float)
IGF_LINEAR_LOOPS(bfloat16)
IGF_LINEAR_LOOPS(half)
IGF_LINEAR_FINISH(bfloat16, bfloat16)
IGF_LINEAR_FINISH(half, half)
#undef IGF_LINEAR_LOOPS
#undef IGF_LINEAR_FINISH

// Rows [first_row, last_row) of outputs [first_output, last_output); x is in f32, its rows a.inputs apart.
template <typename T, typename Y>
void run_task(const InvariantLinear& a, const float* x, int64_t first_row, int64_t last_row, int64_t first_output,
              int64_t last_output, std::vector<float>& sums, std::vector<float>& panel) {
  const int64_t rows = last_row - first_row, outputs = last_output - first_output, block = block_inputs(a.inputs);
  const T* weight = static_cast<const T*>(a.weight) + first_output * a.inputs;
  const T* bias = a.bias == nullptr ? nullptr : static_cast<const T*>(a.bias) + first_output;
  const bool few = a.rows <= kFewRows, widened = !few && !std::is_same_v<T, float>;
  const int64_t sweep_rows = !widened && a.rows <= kSweptAtOnce ? kSweptAtOnce : kSweepRows;
  sums.assign(static_cast<size_t>(rows * outputs), 0.0f);
  if (widened) panel.resize(static_cast<size_t>(outputs * block));
  for (int64_t k = 0; k < a.inputs; k += block) {
    const int64_t left = a.inputs - k, inputs = std::min(block, left);
    // The task after this one begins there.
    const T* next = left > block ? weight + k + block : weight + outputs * a.inputs;
    if (widened) widen(weight + k, a.inputs, outputs, inputs, panel.data(), block);
    for (int64_t row = 0; row < rows; row += sweep_rows) {
      const int64_t count = std::min(sweep_rows, rows - row);
      const float* from = x + (first_row + row) * a.inputs + k;
      float* to = sums.data() + row * outputs;
      if (widened) {
        sweep(Sweep<float>{from, panel.data(), to, a.inputs, block, outputs, count, outputs, inputs, nullptr}, false);
      } else {
        sweep(Sweep<T>{from, weight + k, to, a.inputs, a.inputs, outputs, count, outputs, inputs, next}, row == 0);
      }
    }
  }
  Y* y = static_cast<Y*>(a.y) + first_row * a.outputs + first_output;
  for (int64_t m = 0; m < rows; ++m) finish(sums.data() + m * outputs, bias, y + m * a.outputs, outputs);
}

template <typename T, typename Y>
void run(const InvariantLinear& a, const float* x) {
  const int64_t width = std::max<int64_t>(1, a.inputs);
  const int64_t even = std::clamp(kTaskNumbers / width, kLeastTaskRows, kMostTaskRows);
  const int64_t task_rows = std::min(a.rows, even), task_outputs = a.rows <= kFewRows ? kFewTaskOutputs : kTaskOutputs;
  const int64_t output_tasks = ceil_div(a.outputs, task_outputs), tasks = output_tasks * ceil_div(a.rows, task_rows);
  const int64_t products = task_rows * task_outputs * width;
  parallel_for(0, tasks, 1 + kGrainProducts / products, [&](int64_t begin, int64_t end) {
    std::vector<float> sums, panel;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / output_tasks * task_rows, output = task % output_tasks * task_outputs;
      run_task<T, Y>(a, x, row, std::min(a.rows, row + task_rows), output, std::min(a.outputs, output + task_outputs),
                     sums, panel);
    }
  });
}

template <typename T>
void run_element(const InvariantLinear& a) {
  const T* x = static_cast<const T*>(a.x);
  if constexpr (std::is_same_v<T, float>) {
    run<float, float>(a, x);
  } else {
    std::vector<float> wide(static_cast<size_t>(a.rows * a.inputs));
    parallel_for(0, a.rows, 1 + kGrainProducts / (a.inputs + 1), [&](int64_t begin, int64_t end) {
      widen(x + begin * a.inputs, a.inputs, end - begin, a.inputs, wide.data() + begin * a.inputs, a.inputs);
    });
    a.y_element == Element::kFloat ? run<T, float>(a, wide.data()) : run<T, T>(a, wide.data());
  }
}

}  // namespace

void invariant_linear(const InvariantLinear& a) {
  if (a.rows == 0 || a.outputs == 0) return;
  switch (a.element) {
    case Element::kFloat: return run_element<float>(a);
    case Element::kBfloat16: return run_element<bfloat16>(a);
    case Element::kHalf: return run_element<half>(a);
  }
}

}  // namespace igf
