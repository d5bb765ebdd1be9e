// embedding on the CPU. The gradient groups equal ids by a counting sort, then each thread owns some columns of every
// row: the work is even however often one token occurs, and no two threads write to one place.
#include <algorithm>

#include "cpu/clones.h"
#include "cpu/parallel.h"
#include "cpu/scalar.h"
#include "ops/embedding/embedding.h"

namespace igf {
namespace {

// Columns summed at a time: their f32 sums stay in the first-level cache.
constexpr int64_t kColumns = 256;
// Least columns a thread gets: one cache line of f32.
constexpr int64_t kLeastColumns = 16;
constexpr int64_t kGrainElements = 16384;

template <typename T>
IGF_INLINE void add_rows(const T* a, const T* b, T* y, int64_t width) {
  for (int64_t d = 0; d < width; ++d) y[d] = T(float(a[d]) + float(b[d]));
}

template <typename T>
IGF_INLINE void sum_rows(const T* dy, const int64_t* order, int64_t count, int64_t width, int64_t columns, T* out) {
  float sums[kColumns];
  for (int64_t d = 0; d < columns; ++d) sums[d] = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    const T* row = dy + order[i] * width;
    for (int64_t d = 0; d < columns; ++d) sums[d] += float(row[d]);
  }
  for (int64_t d = 0; d < columns; ++d) out[d] = T(sums[d]);
}

// One plain function a dtype, because IGF_CLONES takes no template.
#define IGF_EMBEDDING_ROWS(T)                                                                                        \
  IGF_CLONES void add_two(const T* __restrict a, const T* __restrict b, T* __restrict y, int64_t width) {            \
    add_rows(a, b, y, width);                                                                                        \
  }                                                                                                                  \
  IGF_CLONES void sum_many(const T* __restrict dy, const int64_t* order, int64_t count, int64_t width,               \
                           int64_t columns, T* __restrict out) {                                                     \
    sum_rows(dy, order, count, width, columns, out);                                                                 \
  }
IGF_EMBEDDING_ROWS(float)
IGF_EMBEDDING_ROWS(bfloat16)
IGF_EMBEDDING_ROWS(half)
#undef IGF_EMBEDDING_ROWS

// order: the indices of ids grouped by id, ascending within a group; starts[v]: where group v begins.
void group_by_id(const int64_t* ids, int64_t count, int64_t rows, int64_t* order, int64_t* starts) {
  std::fill(starts, starts + rows + 1, int64_t{0});
  for (int64_t n = 0; n < count; ++n) ++starts[ids[n] + 1];
  for (int64_t v = 0; v < rows; ++v) starts[v + 1] += starts[v];
  // starts[v] serves as the cursor of group v and ends at the start of group v + 1: shifted back afterwards.
  for (int64_t n = 0; n < count; ++n) order[starts[ids[n]]++] = n;
  for (int64_t v = rows; v > 0; --v) starts[v] = starts[v - 1];
  starts[0] = 0;
}

}  // namespace

int64_t find_id_outside(const int64_t* ids, int64_t count, int64_t limit) {
  for (int64_t n = 0; n < count; ++n) {
    if (ids[n] < 0 || ids[n] >= limit) return n;
  }
  return -1;
}

template <typename T>
void embedding_forward(const int64_t* tokens, const int64_t* position_ids, const T* token_weight,
                       const T* position_weight, T* y, EmbeddingShape shape) {
  const int64_t width = shape.width;
  parallel_for(0, shape.count, kGrainElements / (width + 1), [=](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      add_two(token_weight + tokens[n] * width, position_weight + position_ids[n] * width, y + n * width, width);
    }
  });
}

template <typename T>
void embedding_backward(const int64_t* ids, const T* dy, T* dweight, int64_t rows, EmbeddingShape shape,
                        int64_t* order, int64_t* starts) {
  const int64_t width = shape.width;
  group_by_id(ids, shape.count, rows, order, starts);
  const int64_t least = std::max(kLeastColumns, kGrainElements / (shape.count + rows + 1));
  parallel_for(0, width, least, [=](int64_t begin, int64_t end) {
    for (int64_t column = begin; column < end; column += kColumns) {
      const int64_t columns = std::min(kColumns, end - column);
      for (int64_t v = 0; v < rows; ++v) {
        T* out = dweight + v * width + column;
        const int64_t count = starts[v + 1] - starts[v];
        if (count > 0) {
          sum_many(dy + column, order + starts[v], count, width, columns, out);
        } else {
          std::fill_n(out, columns, T(0.0f));
        }
      }
    }
  });
}

#define IGF_INSTANTIATE(T)                                                                                          \
  template void embedding_forward<T>(const int64_t*, const int64_t*, const T*, const T*, T*, EmbeddingShape);       \
  template void embedding_backward<T>(const int64_t*, const T*, T*, int64_t, EmbeddingShape, int64_t*, int64_t*);
IGF_INSTANTIATE(float)
IGF_INSTANTIATE(bfloat16)
IGF_INSTANTIATE(half)
#undef IGF_INSTANTIATE

}  // namespace igf
