// The backward loops of attention on the CPU, for dense and packed batches alike.
//
// A task is one sequence and key head, because only then no two tasks add to one dk, dv or dq: it walks the blocks of
// keys, and for each the tiles of queries that see it, in a fixed order. All of it is one parallel region: on a machine
// that others share, each region may wait for a whole time slice.
#include <type_traits>

#include "ops/attention/attention_loops.h"

namespace igf {
namespace {

using namespace loops;

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
  tiles::multiply({rows, padded, shape.width, buffers.q, pitch, 1, buffers.keys_t + at, kKeys, buffers.scores, kKeys,
                   false});
  tiles::multiply({rows, padded, shape.width, buffers.dout, pitch, 1, buffers.values_t + at, kKeys, buffers.dscores,
                   kKeys, false});
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = sequence.q_begin + tile + r;
    const tiles::Visible visible = columns.visible(band, tile + r);
    float* scores = buffers.scores + r * kKeys;
    float* dscores = buffers.dscores + r * kKeys;
    tiles::probabilities_row(scores, padded, visible, call.lse[head * call.q_rows + row]);
    const float* keep = shape.dropout_p > 0.0f ? draw_keep(shape, row, head, columns, buffers.keep) : nullptr;
    if (keep != nullptr) tiles::multiply_row(dscores, keep, count);
    tiles::dscores_row(scores, dscores, padded, visible, call.delta[head * call.q_rows + row]);
    if (keep != nullptr) tiles::multiply_row(scores, keep, count);
  }
  tiles::multiply({count, pitch, rows, buffers.scores, 1, kKeys, buffers.dout, pitch, buffers.dvalues + at * pitch,
                   pitch, true});
  tiles::multiply({count, pitch, rows, buffers.dscores, 1, kKeys, buffers.q, pitch, buffers.dkeys + at * pitch, pitch,
                   true});
  tiles::multiply({rows, pitch, count, buffers.dscores, kKeys, 1, buffers.keys + at * pitch, pitch, buffers.dq, pitch,
                   false});
  for (int64_t r = 0; r < rows; ++r) {
    float* sum = row_of(call.dq_sum, sequence.q_begin + tile + r, head);
    tiles::add_scaled_row(sum, buffers.dq + r * pitch, shape.width, shape.scale);
  }
}

// Before the blocks of keys: dq_sum[n, h] = 0, delta[n, h] = out[n, h] . dout[n, h].
template <typename T>
void begin_queries(const AttentionBackward<T>& call, const AttentionSequence& sequence, int64_t head) {
  for (int64_t row = sequence.q_begin; row < sequence.q_begin + sequence.q_count; ++row) {
    std::fill_n(row_of(call.dq_sum, row, head), call.shape.width, 0.0f);
    call.delta[head * call.q_rows + row] =
        tiles::dot_row(row_of(call.out, row, head), row_of(call.dout, row, head), call.shape.width);
  }
}

// After them: dq is the sum, rounded.
template <typename T>
void end_queries(const AttentionBackward<T>& call, const AttentionSequence& sequence, int64_t head) {
  if constexpr (!std::is_same_v<T, float>) {
    for (int64_t row = sequence.q_begin; row < sequence.q_begin + sequence.q_count; ++row) {
      tiles::write_row(row_of(call.dq_sum, row, head), row_of(call.dq, row, head), call.shape.width, 1.0f);
    }
  }
}

template <typename T>
void backward_task(const AttentionBackward<T>& call, const Task& task, const BackwardBuffers& buffers) {
  const AttentionShape& shape = call.shape;
  const AttentionSequence& sequence = *task.sequence;
  const Band band = band_of(shape, sequence);
  const int64_t pitch = tiles::padded(shape.width), group = shape.heads / shape.kv_heads;
  const int64_t first_head = task.kv_head * group, last_head = first_head + group;
  for (int64_t head = first_head; head < last_head; ++head) begin_queries(call, sequence, head);
  for (int64_t block = 0; block < sequence.k_count; block += kKeys) {
    const int64_t block_end = std::min(block + kKeys, sequence.k_count), keys = block_end - block;
    const int64_t key_row = sequence.k_begin + block;
    read_rows(call.k, key_row, task.kv_head, keys, shape.width, 1.0f, buffers.keys);
    tiles::transpose(buffers.keys, pitch, buffers.keys_t, kKeys, keys, shape.width);
    read_rows(call.v, key_row, task.kv_head, keys, shape.width, 1.0f, buffers.values);
    tiles::transpose(buffers.values, pitch, buffers.values_t, kKeys, keys, shape.width);
    std::fill_n(buffers.dkeys, keys * pitch, 0.0f);
    std::fill_n(buffers.dvalues, keys * pitch, 0.0f);
    for (int64_t head = first_head; head < last_head; ++head) {
      for (int64_t tile = 0; tile < sequence.q_count; tile += kQueries) {
        const int64_t tile_end = std::min(tile + kQueries, sequence.q_count);
        const TileColumns columns = tile_columns(band, tile, tile_end - 1, block, block_end);
        if (columns.count() > 0) backward_tile(call, task, buffers, head, tile, tile_end, block, columns);
      }
    }
    for (int64_t j = 0; j < keys; ++j) {
      if (j + kAhead < keys) {
        prefetch_for_write(row_of(call.dk, key_row + j + kAhead, task.kv_head), shape.width);
        prefetch_for_write(row_of(call.dv, key_row + j + kAhead, task.kv_head), shape.width);
      }
      tiles::write_row(buffers.dkeys + j * pitch, row_of(call.dk, key_row + j, task.kv_head), shape.width, 1.0f);
      tiles::write_row(buffers.dvalues + j * pitch, row_of(call.dv, key_row + j, task.kv_head), shape.width, 1.0f);
    }
  }
  for (int64_t head = first_head; head < last_head; ++head) end_queries(call, sequence, head);
}

}  // namespace

template <typename T>
void attention_backward(const AttentionBackward<T>& call) {
  const AttentionShape& shape = call.shape;
  const int64_t pitch = tiles::padded(shape.width);
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

template void attention_backward<float>(const AttentionBackward<float>&);
template void attention_backward<bfloat16>(const AttentionBackward<bfloat16>&);
template void attention_backward<half>(const AttentionBackward<half>&);

}  // namespace igf
