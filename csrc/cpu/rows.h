// Picks rows of a matrix and puts them back: the way to spend nothing on rows that do not count. Torch-free.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/parallel.h"

namespace igf {

// Rows copied by one thread at a time; a row is some hundreds of bytes.
inline constexpr int64_t kRowGrain = 64;

// to[i] = from[rows[i]] for i in [0, count).
inline void gather_rows(const void* from, void* to, const int64_t* rows, int64_t count, int64_t row_bytes) {
  parallel_for(0, count, kRowGrain, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      std::memcpy(static_cast<char*>(to) + i * row_bytes, static_cast<const char*>(from) + rows[i] * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

// to[rows[i]] = from[i] for i in [0, count).
inline void scatter_rows(const void* from, void* to, const int64_t* rows, int64_t count, int64_t row_bytes) {
  parallel_for(0, count, kRowGrain, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      std::memcpy(static_cast<char*>(to) + rows[i] * row_bytes, static_cast<const char*>(from) + i * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

}  // namespace igf
