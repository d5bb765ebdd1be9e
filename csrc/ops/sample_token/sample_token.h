// Draws the next token of each row from its logits.
//
//   1. repetition penalty r, once for each token of the history: s = s / r if s > 0 else s * r   Keskar 2019, 1909.05858
//   2. s = s / temperature (temperature 0: the largest s wins, and 1 is used for the log-probability)
//   3. top-k: keep s >= the k-th largest s                                                       Fan 2018, 1805.04833
//   4. top-p: keep a token while the mass above it is < top_p of the mass kept by 3, the best one always
//                                                                                            Holtzman 2020, 1904.09751
//   5. min-p: keep w >= min_p, w = exp(s - largest s)                                         Nguyen 2024, 2407.01082
//   token = argmax over the kept tokens of w_v / E_v,  E_v = -log(1 - u_v) = log(1 + u_v / (1 - u_v));  lowest of equals
//   logprob = s_token - log sum over all v of exp(s_v)
// Tokens tied with the last one kept are kept too.
//
// u_v = philox::unit of a word of the block drawn with the row's seed as key at the counter
//   (v / 64 * 16 + v % 16, position's low half, its high half, philox::kSampling), word v / 16 % 4:
// a block serves four tokens, sixteen apart, so that a vector and a warp read weights that are neighbours.
//
// Shapes: logits [rows, vocab] f32, bf16 or f16; seeds, positions, tokens [rows] int64; logprobs [rows] f32; parameters
// [rows or 1, kParameters] f32; history [rows, history_length] int64, negative = padding.
// Numbers: f32; masses in f32 within blocks of a fixed size, then in double. Every choice is a comparison with a
// threshold (no sort), and a row is computed whole by one thread: its result does not depend on threads or other rows.
// A row without meaning (NaN or +inf after step 2, no finite logit, a history token >= vocab, a parameter out of its
// range) gives token -1 and logprob NaN.
#pragma once

#include <cstdint>

namespace igf {

enum SampleParameter { kTemperature, kTopK, kTopP, kMinP, kRepetitionPenalty, kParameters };

template <typename T>
struct SampleTokenArguments {
  const T* logits;
  const int64_t* seeds;
  const int64_t* positions;
  const float* parameters;
  int64_t parameter_stride;  // kParameters, or 0 when all rows share them
  const int64_t* history;    // null: none
  int64_t history_length;
  int64_t* tokens;
  float* logprobs;
  int64_t rows;
  int64_t vocab;
};

// T: float, bfloat16, half.
template <typename T>
void sample_token_forward(const SampleTokenArguments<T>& arguments);

}  // namespace igf
