// Sum of two embeddings on CUDA devices, and the gradient of a table.
//
// Work     forward: a row a warp, kTableBatch vectors of 16 bytes a lane from each table on their way at once.
//          Backward: the ids come sorted, so the rows of dy that belong to one row of the table form a run. Runs are
//          cut into pieces of 32 places: a token with thousands of places keeps many blocks busy instead of one.
//          A warp takes 32 columns of a piece in vectors and adds up run after run. A run inside one piece is finished
//          there; of a run in several, each piece leaves a partial row, which a second kernel adds in order.
// Memory   bytes an element of size e: forward 3 e and 16 a token; backward e read once in the order of the runs, and
//          e for each row that an id names; partial rows 4 for each end of a piece that cuts a run. Both are bound by
//          memory: 16384 tokens of 768 bf16 read 50 MB and write 25 MB forward, 17 us at 4.3 TB/s. Not measured. The
//          zeros of a table of 50257 rows, 77 MB of bf16, are written before by ATen.
// Numbers  forward: one addition in f32. Backward: within a piece in the order of the places, then piece by piece in
//          kSlices interleaved sums that are added in order: equal bits always.
// Limits   rows that are not whole 16-byte vectors and unaligned pointers are moved element by element.
// Source   Radford et al. 2018, "Improving language understanding by generative pre-training", eq. 2 (h_0).
#include <type_traits>

#include "device/held.cuh"
#include "device/launch.cuh"
#include "ops/embedding/embedding.h"

namespace igf {
namespace {

using namespace device;

constexpr int kWarps = 8;               // of a block
constexpr int kTableBatch = 4;          // vectors of a lane from each table that are on their way at once
constexpr int kPiece = kWarp;           // places of a piece: one for each lane, which holds its id
constexpr int kBatch = 8;               // rows of dy that are on their way at once
constexpr int kSlices = 16;             // interleaved sums of the last kernel

template <typename T, int kLanes>
IGF_KERNEL(kWarp * kWarps)
embedding_forward_rows(EmbeddingForward a) {
  const int64_t n = block_x() * kWarps + thread_y();  // [0, count)
  if (n >= a.count) return;
  const int64_t token = load(a.tokens + n);
  const int64_t position = load(a.position_ids + n);
  const bool is_inside = token >= 0 && token < a.vocab && position >= 0 && position < a.positions;
  const int64_t vectors = a.width / kLanes;
  const auto* const words = static_cast<const Held<T, kLanes>*>(a.token_weight) + token * vectors;
  const auto* const places = static_cast<const Held<T, kLanes>*>(a.position_weight) + position * vectors;
  T* const y = static_cast<T*>(a.y) + n * a.width;
  for (int64_t first = thread_x(); first < vectors; first += kTableBatch * kWarp) {  // [0, vectors)
    Held<T, kLanes> word[kTableBatch] = {};
    Held<T, kLanes> place[kTableBatch] = {};
#pragma unroll
    for (int b = 0; b < kTableBatch; ++b) {
      if (first + b * kWarp >= vectors || !is_inside) continue;
      word[b] = load(words + first + b * kWarp);
      place[b] = load(places + first + b * kWarp);
    }
#pragma unroll
    for (int b = 0; b < kTableBatch; ++b) {
      if (first + b * kWarp >= vectors) continue;
      float sum[kLanes];
      float more[kLanes];
      unpack_held<T>(sum, word[b]);
      unpack_held<T>(more, place[b]);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) sum[i] = is_inside ? sum[i] + more[i] : __builtin_nanf("");
      store_lanes(y + (first + b * kWarp) * kLanes, sum);
    }
  }
}

// Where a thread's kLanes columns stand in a partial row: lane by lane, so that neighbours write neighbours.
IGF_DEVICE int64_t partial_place(int64_t row, int lane, int64_t vector, int64_t vectors, int64_t width) {
  return row * width + lane * vectors + vector;
}

// Which partial row a piece leaves: of the run that it takes over from the piece before, or of the one that it begins.
constexpr int kTakenOver = 0;
constexpr int kBegun = 1;

// A warp adds up 32 vectors of columns of one piece.
template <typename T, int kLanes>
IGF_KERNEL(kWarp * kWarps)
embedding_sum_pieces(EmbeddingBackward a) {
  const int64_t vectors = a.width / kLanes;
  const int64_t chunks = (vectors + kWarp - 1) / kWarp;
  const int64_t work = block_x() * kWarps + thread_y();  // [0, pieces * chunks): the chunks of a piece are neighbours
  const int64_t piece = work / chunks;                   // [0, pieces)
  const int64_t begin = piece * kPiece;
  if (begin >= a.count) return;
  const int places = static_cast<int>(a.count - begin < kPiece ? a.count - begin : kPiece);
  const int64_t vector = work % chunks * kWarp + thread_x();  // [0, vectors) where it is inside
  const bool is_inside = vector < vectors;

  // Lane i keeps place i of the piece; before and after are the ids next to the piece, -1 and `rows` stand for none.
  const int lane = thread_x();
  const int64_t id = lane < places ? load(a.ids + begin + lane) : a.rows;
  const int64_t n = lane < places ? load(a.order + begin + lane) : 0;
  const int64_t before = begin > 0 ? load(a.ids + begin - 1) : -1;
  const int64_t after = begin + places < a.count ? load(a.ids + begin + places) : a.rows;

  float sums[kLanes] = {};
  bool is_taken_over = shuffle(static_cast<uint64_t>(id), 0) == static_cast<uint64_t>(before);
  for (int first = 0; first < places; first += kBatch) {  // [0, places)
    Held<T, kLanes> dy[kBatch] = {};
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const auto row = static_cast<int64_t>(shuffle(static_cast<uint64_t>(n), first + b));
      if (first + b >= places || !is_inside) continue;
      const T* const place = static_cast<const T*>(a.dy) + row * a.width + vector * kLanes;
      dy[b] = load_once(reinterpret_cast<const Held<T, kLanes>*>(place));
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int place = first + b;
      const auto here = static_cast<int64_t>(shuffle(static_cast<uint64_t>(id), place));
      const auto next_in_piece = static_cast<int64_t>(shuffle(static_cast<uint64_t>(id), (place + 1) % kWarp));
      if (place >= places) continue;
      const int64_t next = place + 1 < places ? next_in_piece : after;
      float values[kLanes];
      unpack_held<T>(values, dy[b]);
#pragma unroll
      for (int i = 0; i < kLanes; ++i) sums[i] += values[i];
      if (here == next && place + 1 < places) continue;
      // The run, or the piece's share of it, ends here. An id outside the table belongs nowhere.
      if (here >= 0 && here < a.rows && is_inside) {
        if (is_taken_over || here == next) {
          const int64_t row = 2 * piece + (is_taken_over ? kTakenOver : kBegun);
#pragma unroll
          for (int i = 0; i < kLanes; ++i) store(a.partials + partial_place(row, i, vector, vectors, a.width), sums[i]);
        } else {
          store_lanes(static_cast<T*>(a.dweight) + here * a.width + vector * kLanes, sums);
        }
      }
#pragma unroll
      for (int i = 0; i < kLanes; ++i) sums[i] = 0.0f;
      is_taken_over = false;
    }
  }
}

// Adds the partial rows of each run that begins in one piece and goes on into others; a block for 32 vectors of columns
// of the piece where it begins.
template <typename T, int kLanes>
IGF_KERNEL(kWarp * kSlices)
embedding_join_pieces(EmbeddingBackward a) {
  IGF_SHARED_ARRAY(float, slices, kSlices * kLanes * kWarp);
  const int64_t piece = block_x();  // [0, pieces)
  const int64_t last = piece * kPiece + kPiece - 1;
  if (last + 1 >= a.count) return;
  const int64_t id = load(a.ids + last);
  const bool goes_on = load(a.ids + last + 1) == id;
  const bool begins_here = load(a.ids + piece * kPiece) != id || piece == 0 || load(a.ids + piece * kPiece - 1) != id;
  if (!goes_on || !begins_here || id < 0 || id >= a.rows) return;
  // The run goes on through the pieces up to `end`: those whose first id is the same.
  int64_t low = piece + 1;  // goes on into this one; [piece + 1, pieces)
  int64_t high = (a.count + kPiece - 1) / kPiece;
  while (low + 1 < high) {
    const int64_t middle = low + (high - low) / 2;
    if (load(a.ids + middle * kPiece) == id) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int64_t end = high;

  const int64_t vectors = a.width / kLanes;
  const int64_t vector = block_y() * kWarp + thread_x();  // [0, vectors) where it is inside
  const int slice = thread_y();  // [0, kSlices): every kSlices-th piece of the run
  float sums[kLanes] = {};
#pragma unroll 4
  for (int64_t other = piece + slice; other < end && vector < vectors; other += kSlices) {  // [piece, end)
    const int64_t row = 2 * other + (other == piece ? kBegun : kTakenOver);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      sums[i] += load_once(a.partials + partial_place(row, i, vector, vectors, a.width));
    }
  }
#pragma unroll
  for (int i = 0; i < kLanes; ++i) slices[(slice * kLanes + i) * kWarp + thread_x()] = sums[i];
  block_barrier();  // every slice is in shared memory
  if (slice != 0 || vector >= vectors) return;
#pragma unroll
  for (int i = 0; i < kLanes; ++i) {
    for (int s = 1; s < kSlices; ++s) sums[i] += slices[(s * kLanes + i) * kWarp + thread_x()];
  }
  store_lanes(static_cast<T*>(a.dweight) + id * a.width + vector * kLanes, sums);
}

template <typename T, int kLanes>
void start_backward(const EmbeddingBackward& a, const DeviceContext& context) {
  const int64_t pieces = ceil_div(a.count, kPiece), chunks = ceil_div(a.width / kLanes, kWarp);
  launch("embedding_sum_pieces", &embedding_sum_pieces<T, kLanes>,
         {ceil_div(pieces * chunks, kWarps), 1, kWarp, kWarps}, context, a);
  if (pieces > 1) {
    launch("embedding_join_pieces", &embedding_join_pieces<T, kLanes>,
           {pieces, chunks, kWarp, kSlices}, context, a);
  }
}

// Calls body(tag, lanes): a value of the element type, and how many of them one access moves, as a constant.
template <typename Arguments, typename Body>
void switch_access(const Arguments& a, const Body& body) {
  const auto with_lanes = [&](auto tag) {
    using T = decltype(tag);
    if (a.aligned && a.width % kVectorLanes<T> == 0) {
      body(tag, std::integral_constant<int, kVectorLanes<T>>());
    } else {
      body(tag, std::integral_constant<int, 1>());
    }
  };
  switch (a.element) {
    case Element::kFloat: return with_lanes(float{});
    case Element::kBfloat16: return with_lanes(device::bfloat16{});
    case Element::kHalf: return with_lanes(device::half{});
  }
}

}  // namespace

int64_t embedding_partial_rows(int64_t count) { return 2 * ceil_div(count, kPiece); }

void embedding_forward_cuda(const EmbeddingForward& a, const DeviceContext& context) {
  if (a.count == 0 || a.width == 0) return;
  switch_access(a, [&](auto tag, auto lanes) {
    launch("embedding_forward_rows", &embedding_forward_rows<decltype(tag), decltype(lanes)::value>,
           {ceil_div(a.count, kWarps), 1, kWarp, kWarps}, context, a);
  });
}

void embedding_backward_cuda(const EmbeddingBackward& a, const DeviceContext& context) {
  if (a.count == 0 || a.width == 0 || a.rows == 0) return;
  switch_access(a, [&](auto tag, auto lanes) { start_backward<decltype(tag), decltype(lanes)::value>(a, context); });
}

}  // namespace igf
