// attention on the CPU: loops of its own over (sequence, key head) and blocks of keys, for dense and packed batches alike.
//
// Why not ATen's flash attention: measured on two cores of an AVX-512 machine at training shapes (causal, width 64,
// benchmarks/ops/bench_attention.py), and it serves neither packed sequences, windows, dropout nor fewer key heads.
//
// Forward: a task is some queries of one sequence against one key head; it walks the blocks of keys they see with a running
// maximum and sum. Backward: a task is one sequence and key head, because only then no two tasks add to one dk, dv or dq;
// it walks blocks of keys, and for each the tiles of queries that see it. Tasks are independent and each adds in a fixed
// order, so the bits do not depend on the number of threads. Longest tasks first, threads take the next one when free.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_tiles.h"

namespace igf {
namespace {

constexpr int64_t kQueries = 32;  // rows of a tile
constexpr int64_t kKeys = 128;    // keys of a block: its scores, keys and values stay in the second-level cache
constexpr int64_t kChunk = 128;   // queries of a forward task, over which packing a block is spread

static_assert(kKeys % tiles::kDropoutKeys == 0 && kKeys % tiles::kVector == 0);

// Which keys query i of a sequence sees.
struct Band {
  int64_t offset, keys, window;
  bool causal;

  int64_t end(int64_t i) const { return causal ? std::clamp<int64_t>(i + offset + 1, 0, keys) : keys; }
  int64_t begin(int64_t i) const { return window > 0 ? std::clamp<int64_t>(i + offset + 1 - window, 0, keys) : 0; }
};

Band band_of(const AttentionShape& shape, const AttentionSequence& sequence) {
  return {sequence.k_count - sequence.q_count, sequence.k_count, shape.window, shape.causal};
}

// The columns of a block of keys that some query of a tile sees, widened on the left to a whole vector.
struct TileColumns {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
  tiles::Visible visible(const Band& band, int64_t i) const {
    const int64_t first = std::clamp(band.begin(i), begin, end);
    return {first - begin, std::clamp(band.end(i), first, end) - begin};
  }
};

TileColumns tile_columns(const Band& band, int64_t first_query, int64_t last_query, int64_t block, int64_t block_end) {
  const int64_t begin = std::max(block, band.begin(first_query));
  const int64_t aligned = block + (begin - block) / tiles::kVector * tiles::kVector;
  return {aligned, std::max(aligned, std::min(block_end, band.end(last_query)))};
}

// Memory for one thread, aligned to a cache line.
class Scratch {
 public:
  float* take(int64_t floats) {
    const size_t bytes = static_cast<size_t>(tiles::padded(floats)) * sizeof(float);
    parts_.emplace_back(static_cast<float*>(::operator new(bytes, kAlign)));
    return parts_.back().get();
  }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlign); }
  };
  std::vector<std::unique_ptr<float, Free>> parts_;
};

template <typename T>
IGF_INLINE void read_body(const T* from, float* to, int64_t width, float factor) {
  for (int64_t d = 0; d < width; ++d) to[d] = float(from[d]) * factor;
}
template <typename T>
IGF_INLINE void write_body(const float* from, T* to, int64_t width, float factor) {
  for (int64_t d = 0; d < width; ++d) to[d] = T(from[d] * factor);
}
template <typename T>
IGF_INLINE float dot_body(const T* a, const T* b, int64_t width) {
  float lanes[tiles::kVector] = {};
  int64_t d = 0;
  for (; d + tiles::kVector <= width; d += tiles::kVector) {
    for (int64_t l = 0; l < tiles::kVector; ++l) lanes[l] += float(a[d + l]) * float(b[d + l]);
  }
  for (; d < width; ++d) lanes[0] += float(a[d]) * float(b[d]);
  float sum = 0.0f;
  for (int64_t l = 0; l < tiles::kVector; ++l) sum += lanes[l];
  return sum;
}

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_ATTENTION_ROWS(T)                                                                            \
  IGF_CLONES void read_row(const T* __restrict from, float* __restrict to, int64_t width, float factor) { \
    read_body(from, to, width, factor);                                                                  \
  }                                                                                                      \
  IGF_CLONES void write_row(const float* __restrict from, T* __restrict to, int64_t width, float factor) { \
    write_body(from, to, width, factor);                                                                 \
  }                                                                                                      \
  IGF_CLONES float dot_row(const T* a, const T* b, int64_t width) { return dot_body(a, b, width); }
IGF_ATTENTION_ROWS(float)
IGF_ATTENTION_ROWS(bfloat16)
IGF_ATTENTION_ROWS(half)
#undef IGF_ATTENTION_ROWS

template <typename T>
T* row_of(const AttentionView<T>& view, int64_t row, int64_t head) {
  return view.data + row * view.row_stride + head * view.head_stride;
}

// to[r][0, width) = factor * rows [row, row + count) of one head, zeros up to the pitch.
template <typename T>
void read_rows(const AttentionView<const T>& view, int64_t row, int64_t head, int64_t count, int64_t width, float factor,
               float* to) {
  const int64_t pitch = tiles::padded(width);
  for (int64_t r = 0; r < count; ++r) {
    read_row(row_of(view, row + r, head), to + r * pitch, width, factor);
    std::fill(to + r * pitch + width, to + (r + 1) * pitch, 0.0f);
  }
}

tiles::Dropout dropout_of(const AttentionShape& shape) {
  const double threshold = std::round(static_cast<double>(shape.dropout_p) * 4294967296.0);
  return {shape.dropout_seed, static_cast<uint32_t>(std::min(threshold, 4294967295.0)), 1.0f / (1.0f - shape.dropout_p)};
}

// The dropout factors of the tile's columns: drawn for whole groups of keys (blocks begin on a group), returned from the
// first column on.
const float* draw_keep(const AttentionShape& shape, int64_t row, int64_t head, const TileColumns& columns, float* keep) {
  constexpr int64_t kGroup = tiles::kDropoutKeys;
  const int64_t first = columns.begin / kGroup * kGroup;
  const int64_t count = (columns.end - first + kGroup - 1) / kGroup * kGroup;
  tiles::dropout_row(dropout_of(shape), row, head, first, keep, count);
  return keep + columns.begin - first;
}

struct Task {
  const AttentionSequence* sequence;
  int64_t kv_head;
  int64_t first_query, last_query;
  int64_t work;
};

// Runs run(task, scratch) for every task, each on the thread that comes free next.
template <typename MakeBuffers, typename Run>
void run_tasks(std::vector<Task>& tasks, const MakeBuffers& make_buffers, const Run& run) {
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.work > b.work; });
  const int64_t count = static_cast<int64_t>(tasks.size());
  std::atomic<int64_t> next{0};
  parallel_for(0, count, 1, [&](int64_t, int64_t) {
    int64_t index = next.fetch_add(1);
    if (index >= count) return;
    Scratch scratch;
    auto buffers = make_buffers(scratch);
    for (; index < count; index = next.fetch_add(1)) run(tasks[static_cast<size_t>(index)], buffers);
  });
}

struct ForwardBuffers {
  float *q, *out, *maximum, *sum, *keys, *keys_t, *values, *scores, *keep;
};

// One block of keys against the task's queries of one head.
template <typename T>
void forward_block(const AttentionForward<T>& call, const Task& task, const ForwardBuffers& buffers, int64_t head,
                   int64_t member, int64_t block, int64_t block_end) {
  const AttentionShape& shape = call.shape;
  const Band band = band_of(shape, *task.sequence);
  const int64_t pitch = tiles::padded(shape.width);
  for (int64_t tile = task.first_query; tile < task.last_query; tile += kQueries) {
    const int64_t tile_end = std::min(tile + kQueries, task.last_query);
    const TileColumns columns = tile_columns(band, tile, tile_end - 1, block, block_end);
    if (columns.count() == 0) continue;
    const int64_t slot = member * kChunk + tile - task.first_query, padded = tiles::padded(columns.count());
    tiles::multiply({tile_end - tile, padded, shape.width, buffers.q + slot * pitch, pitch, 1,
                     buffers.keys_t + columns.begin - block, kKeys, buffers.scores, kKeys, false});
    for (int64_t i = tile; i < tile_end; ++i) {
      const int64_t r = i - tile;
      float* scores = buffers.scores + r * kKeys;
      const float before = tiles::softmax_row(scores, padded, columns.visible(band, i), buffers.maximum + slot + r,
                                              buffers.sum + slot + r);
      if (before != 1.0f) tiles::scale_row(buffers.out + (slot + r) * pitch, pitch, before);
      if (shape.dropout_p > 0.0f) {
        const float* keep = draw_keep(shape, task.sequence->q_begin + i, head, columns, buffers.keep);
        tiles::multiply_row(scores, keep, columns.count());
      }
    }
    tiles::multiply({tile_end - tile, pitch, columns.count(), buffers.scores, kKeys, 1,
                     buffers.values + (columns.begin - block) * pitch, pitch, buffers.out + slot * pitch, pitch, true});
  }
}

template <typename T>
void forward_task(const AttentionForward<T>& call, const Task& task, const ForwardBuffers& buffers) {
  const AttentionShape& shape = call.shape;
  const AttentionSequence& sequence = *task.sequence;
  const Band band = band_of(shape, sequence);
  const int64_t pitch = tiles::padded(shape.width), group = shape.heads / shape.kv_heads;
  const int64_t queries = task.last_query - task.first_query;
  for (int64_t member = 0; member < group; ++member) {
    const int64_t slot = member * kChunk;
    read_rows(call.q, sequence.q_begin + task.first_query, task.kv_head * group + member, queries, shape.width,
              shape.scale, buffers.q + slot * pitch);
    std::fill_n(buffers.out + slot * pitch, queries * pitch, 0.0f);
    std::fill_n(buffers.maximum + slot, queries, -INFINITY);
    std::fill_n(buffers.sum + slot, queries, 0.0f);
  }
  const int64_t first = band.begin(task.first_query) / kKeys * kKeys, last = band.end(task.last_query - 1);
  for (int64_t block = first; block < last; block += kKeys) {
    const int64_t block_end = std::min(block + kKeys, last), row = sequence.k_begin + block;
    read_rows(call.k, row, task.kv_head, block_end - block, shape.width, 1.0f, buffers.keys);
    tiles::transpose(buffers.keys, pitch, buffers.keys_t, kKeys, block_end - block, shape.width);
    read_rows(call.v, row, task.kv_head, block_end - block, shape.width, 1.0f, buffers.values);
    for (int64_t member = 0; member < group; ++member) {
      forward_block(call, task, buffers, task.kv_head * group + member, member, block, block_end);
    }
  }
  for (int64_t member = 0; member < group; ++member) {
    const int64_t head = task.kv_head * group + member;
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t slot = member * kChunk + i, row = sequence.q_begin + task.first_query + i;
      const float sum = buffers.sum[slot];
      // A query that sees nothing has the sum 0 and the output 0.
      write_row(buffers.out + slot * pitch, row_of(call.out, row, head), shape.width, sum == 0.0f ? 0.0f : 1.0f / sum);
      call.lse[row * shape.heads + head] = buffers.maximum[slot] + std::log(sum);
    }
  }
}

struct BackwardBuffers {
  float *keys, *keys_t, *values, *values_t, *dkeys, *dvalues;
  float *q, *dout, *scores, *dscores, *keep, *dq;
};

// One block of keys against one tile of queries of one head.
template <typename T>
void backward_tile(const AttentionBackward<T>& call, const Task& task, const BackwardBuffers& buffers, int64_t head,
                   int64_t tile, int64_t tile_end, int64_t block, const TileColumns& columns) {
  const AttentionShape& shape = call.shape;
  const AttentionSequence& sequence = *task.sequence;
  const Band band = band_of(shape, sequence);
  const int64_t pitch = tiles::padded(shape.width), padded = tiles::padded(columns.count());
  const int64_t count = columns.count(), rows = tile_end - tile, at = columns.begin - block;
  read_rows(call.q, sequence.q_begin + tile, head, rows, shape.width, shape.scale, buffers.q);
  read_rows(call.dout, sequence.q_begin + tile, head, rows, shape.width, 1.0f, buffers.dout);
  tiles::multiply({rows, padded, shape.width, buffers.q, pitch, 1, buffers.keys_t + at, kKeys, buffers.scores, kKeys, false});
  tiles::multiply(
      {rows, padded, shape.width, buffers.dout, pitch, 1, buffers.values_t + at, kKeys, buffers.dscores, kKeys, false});
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = sequence.q_begin + tile + r;
    const tiles::Visible visible = columns.visible(band, tile + r);
    float* scores = buffers.scores + r * kKeys;
    float* dscores = buffers.dscores + r * kKeys;
    tiles::probabilities_row(scores, padded, visible, call.lse[row * shape.heads + head]);
    const float* keep = shape.dropout_p > 0.0f ? draw_keep(shape, row, head, columns, buffers.keep) : nullptr;
    if (keep != nullptr) tiles::multiply_row(dscores, keep, count);
    tiles::dscores_row(scores, dscores, padded, visible, call.delta[row * shape.heads + head]);
    if (keep != nullptr) tiles::multiply_row(scores, keep, count);
  }
  tiles::multiply({count, pitch, rows, buffers.scores, 1, kKeys, buffers.dout, pitch, buffers.dvalues + at * pitch, pitch, true});
  tiles::multiply({count, pitch, rows, buffers.dscores, 1, kKeys, buffers.q, pitch, buffers.dkeys + at * pitch, pitch, true});
  tiles::multiply({rows, pitch, count, buffers.dscores, kKeys, 1, buffers.keys + at * pitch, pitch, buffers.dq, pitch, false});
  for (int64_t r = 0; r < rows; ++r) {
    tiles::add_scaled_row(row_of(call.dq, sequence.q_begin + tile + r, head), buffers.dq + r * pitch, shape.width, shape.scale);
  }
}

template <typename T>
void backward_task(const AttentionBackward<T>& call, const Task& task, const BackwardBuffers& buffers) {
  const AttentionShape& shape = call.shape;
  const AttentionSequence& sequence = *task.sequence;
  const Band band = band_of(shape, sequence);
  const int64_t pitch = tiles::padded(shape.width), group = shape.heads / shape.kv_heads;
  for (int64_t block = 0; block < sequence.k_count; block += kKeys) {
    const int64_t block_end = std::min(block + kKeys, sequence.k_count), keys = block_end - block;
    const int64_t key_row = sequence.k_begin + block;
    read_rows(call.k, key_row, task.kv_head, keys, shape.width, 1.0f, buffers.keys);
    tiles::transpose(buffers.keys, pitch, buffers.keys_t, kKeys, keys, shape.width);
    read_rows(call.v, key_row, task.kv_head, keys, shape.width, 1.0f, buffers.values);
    tiles::transpose(buffers.values, pitch, buffers.values_t, kKeys, keys, shape.width);
    std::fill_n(buffers.dkeys, keys * pitch, 0.0f);
    std::fill_n(buffers.dvalues, keys * pitch, 0.0f);
    for (int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
      for (int64_t tile = 0; tile < sequence.q_count; tile += kQueries) {
        const int64_t tile_end = std::min(tile + kQueries, sequence.q_count);
        const TileColumns columns = tile_columns(band, tile, tile_end - 1, block, block_end);
        if (columns.count() > 0) backward_tile(call, task, buffers, head, tile, tile_end, block, columns);
      }
    }
    for (int64_t j = 0; j < keys; ++j) {
      write_row(buffers.dkeys + j * pitch, row_of(call.dk, key_row + j, task.kv_head), shape.width, 1.0f);
      write_row(buffers.dvalues + j * pitch, row_of(call.dv, key_row + j, task.kv_head), shape.width, 1.0f);
    }
  }
}

// delta[n, h] = out[n, h] . dout[n, h]
template <typename T>
void fill_delta(const AttentionBackward<T>& call) {
  const int64_t heads = call.shape.heads, width = call.shape.width;
  for (int64_t s = 0; s < call.sequence_count; ++s) {
    const AttentionSequence& sequence = call.sequences[s];
    parallel_for(sequence.q_begin, sequence.q_begin + sequence.q_count, 16384 / (heads * width + 1) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     for (int64_t head = 0; head < heads; ++head) {
                       call.delta[row * heads + head] =
                           dot_row(row_of(call.out, row, head), row_of(call.dout, row, head), width);
                     }
                   }
                 });
  }
}

}  // namespace

template <typename T>
void attention_forward(const AttentionForward<T>& call) {
  const AttentionShape& shape = call.shape;
  const int64_t pitch = tiles::padded(shape.width), group = shape.heads / shape.kv_heads;
  std::vector<Task> tasks;
  for (int64_t s = 0; s < call.sequence_count; ++s) {
    const AttentionSequence* sequence = call.sequences + s;
    const Band band = band_of(shape, *sequence);
    for (int64_t first = 0; first < sequence->q_count; first += kChunk) {
      const int64_t last = std::min(first + kChunk, sequence->q_count);
      const int64_t work = (last - first) * (band.end(last - 1) - band.begin(first));
      for (int64_t head = 0; head < shape.kv_heads; ++head) tasks.push_back({sequence, head, first, last, work});
    }
  }
  const auto make_buffers = [=](Scratch& scratch) {
    return ForwardBuffers{scratch.take(group * kChunk * pitch), scratch.take(group * kChunk * pitch),
                          scratch.take(group * kChunk),         scratch.take(group * kChunk),
                          scratch.take(kKeys * pitch),          scratch.take(pitch * kKeys),
                          scratch.take(kKeys * pitch),          scratch.take(kQueries * kKeys),
                          scratch.take(kKeys)};
  };
  run_tasks(tasks, make_buffers, [&](const Task& task, const ForwardBuffers& b) { forward_task(call, task, b); });
}

template <typename T>
void attention_backward(const AttentionBackward<T>& call) {
  const AttentionShape& shape = call.shape;
  const int64_t pitch = tiles::padded(shape.width);
  fill_delta(call);
  std::vector<Task> tasks;
  for (int64_t s = 0; s < call.sequence_count; ++s) {
    const AttentionSequence* sequence = call.sequences + s;
    const int64_t work = sequence->q_count * sequence->k_count;
    for (int64_t head = 0; head < shape.kv_heads; ++head) tasks.push_back({sequence, head, 0, sequence->q_count, work});
  }
  const auto make_buffers = [=](Scratch& scratch) {
    const auto block = [&] { return scratch.take(kKeys * pitch); };
    const auto tile = [&] { return scratch.take(kQueries * pitch); };
    const auto square = [&] { return scratch.take(kQueries * kKeys); };
    return BackwardBuffers{block(), block(), block(),  block(),  block(),             block(),
                           tile(),  tile(),  square(), square(), scratch.take(kKeys), tile()};
  };
  run_tasks(tasks, make_buffers, [&](const Task& task, const BackwardBuffers& b) { backward_task(call, task, b); });
}

template void attention_forward<float>(const AttentionForward<float>&);
template void attention_forward<bfloat16>(const AttentionForward<bfloat16>&);
template void attention_forward<half>(const AttentionForward<half>&);
template void attention_backward<float>(const AttentionBackward<float>&);
template void attention_backward<bfloat16>(const AttentionBackward<bfloat16>&);
template void attention_backward<half>(const AttentionBackward<half>&);

}  // namespace igf
