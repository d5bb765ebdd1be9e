// attention_decode on the CPU: the arithmetic on queries and a run of keys, compiled for each CPU level.
//
// Every function gives a query the same bits whatever the other queries and however many there are: a score is summed
// over the lanes of cpu/lanes.h and then over these; a query's values are summed in the order of its keys, run by run.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"

namespace igf::decode {

// Keys of a run, at most.
inline constexpr int64_t kRun = 32;
// Queries that meet a run together. With fewer, a run is read where it lies; with more it is widened first.
inline constexpr int64_t kTogether = 4;
// Scores that may be written behind a run's last one.
inline constexpr int64_t kSpill = kLanes;

inline int64_t padded(int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }

// `count` keys or values, `stride` elements apart.
template <typename T>
struct Run {
  const T* from;
  int64_t stride, count, width;
};

// scores[j] = query . key j; the query has padded(width) numbers, zeros at the end.
void score(const Run<float>& keys, const float* query, float* scores);
void score(const Run<bfloat16>& keys, const float* query, float* scores);
void score(const Run<half>& keys, const float* query, float* scores);

// out[d] += sum over j of probabilities[j] * value j [d], for d < width.
void gather(const Run<float>& values, const float* probabilities, float* out);
void gather(const Run<bfloat16>& values, const float* probabilities, float* out);
void gather(const Run<half>& values, const float* probabilities, float* out);

// to[j * padded(width) + d] = run j [d], zeros from width on; `to` has room for kRun.
void widen(const Run<float>& run, float* to);
void widen(const Run<bfloat16>& run, float* to);
void widen(const Run<half>& run, float* to);

// The same as score and gather for kTogether queries that stand padded(width) apart, on a widened run; their scores and
// probabilities stand `pitch` apart. Up to kSpill scores behind the run's are overwritten.
void score_together(const float* keys, int64_t count, int64_t padded_width, const float* queries, float* scores,
                    int64_t pitch);
void gather_together(const float* values, int64_t count, int64_t padded_width, const float* probabilities,
                     int64_t pitch, float* out);

// Turns `count` scores into exp(score - maximum); returns their sum.
float softmax(float* scores, int64_t count);

void read(const float* from, float* to, int64_t count, float factor);  // to = from * factor
void read(const bfloat16* from, float* to, int64_t count, float factor);
void read(const half* from, float* to, int64_t count, float factor);
void write(const float* from, float* to, int64_t count, float factor);
void write(const float* from, bfloat16* to, int64_t count, float factor);
void write(const float* from, half* to, int64_t count, float factor);

}  // namespace igf::decode
