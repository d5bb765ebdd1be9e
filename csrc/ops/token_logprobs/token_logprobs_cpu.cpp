// token_logprobs: statistics of rows of logits, and the gradient of rows in place.
//
// Work: one exponential a logit each way. Memory: a row is read twice forward, read and written once backward.
#include "ops/token_logprobs/token_logprobs.h"

#include <cmath>

#include "cpu/parallel.h"
#include "cpu/softmax.h"

namespace igf {
namespace {

template <typename T>
IGF_INLINE void forward_body(const T* logits, const TokenLogprobRows& rows, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    const T* z = logits + i * rows.vocabulary;
    const softmax::Row row = softmax::row_of<true>(z, rows.vocabulary, rows.inverse_temperature);
    const double log_sum = std::log(row.sum);
    const float at_token = (static_cast<float>(z[rows.tokens[i]]) - row.largest) * rows.inverse_temperature;
    rows.logprobs[i] = static_cast<float>(at_token - log_sum);
    rows.entropy[i] = static_cast<float>(log_sum - row.weighted / row.sum);
    rows.statistics[2 * i] = row.largest;
    rows.statistics[2 * i + 1] = static_cast<float>(row.sum);
  }
}

template <typename T>
IGF_INLINE void backward_body(T* logits, const TokenLogprobGradientRows& rows, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; ++i) {
    T* z = logits + i * rows.vocabulary;
    const int64_t place = rows.rows[i];
    const softmax::Row row{rows.statistics[2 * place], rows.statistics[2 * place + 1], 0.0};
    const float inverse_temperature = rows.inverse_temperature;
    const float log_sum = static_cast<float>(std::log(row.sum));
    const float from_logprob = rows.dlogprobs[place] * inverse_temperature;
    const float from_entropy = rows.dentropy[place] * inverse_temperature;
    const float entropy = rows.entropy[place];
    const float at_token = (static_cast<float>(z[rows.tokens[place]]) - row.largest) * inverse_temperature;
    const auto gradient = [=](float p, float log_p) __attribute__((always_inline)) {
      return -p * (from_logprob + from_entropy * (log_p + entropy));
    };
    softmax::replace_row(z, rows.vocabulary, inverse_temperature, row, log_sum, gradient);
    // From f32, before the sum is rounded to T.
    const float p = math::exp(at_token) * static_cast<float>(1.0 / row.sum);
    z[rows.tokens[place]] = T(from_logprob + gradient(p, at_token - log_sum));
  }
}

IGF_CLONES void forward_range(const float* logits, const TokenLogprobRows& rows, int64_t first, int64_t last) {
  forward_body(logits, rows, first, last);
}

IGF_CLONES void forward_range(const bfloat16* logits, const TokenLogprobRows& rows, int64_t first, int64_t last) {
  forward_body(logits, rows, first, last);
}

IGF_CLONES void backward_range(float* logits, const TokenLogprobGradientRows& rows, int64_t first, int64_t last) {
  backward_body(logits, rows, first, last);
}

IGF_CLONES void backward_range(bfloat16* logits, const TokenLogprobGradientRows& rows, int64_t first, int64_t last) {
  backward_body(logits, rows, first, last);
}

}  // namespace

template <typename T>
void token_logprob_rows(const T* logits, const TokenLogprobRows& rows) {
  parallel_for(0, rows.count, 1, [&](int64_t first, int64_t last) { forward_range(logits, rows, first, last); });
}

template <typename T>
void token_logprob_gradient_rows(T* logits, const TokenLogprobGradientRows& rows) {
  parallel_for(0, rows.count, 1, [&](int64_t first, int64_t last) { backward_range(logits, rows, first, last); });
}

template void token_logprob_rows<float>(const float*, const TokenLogprobRows&);
template void token_logprob_rows<bfloat16>(const bfloat16*, const TokenLogprobRows&);
template void token_logprob_gradient_rows<float>(float*, const TokenLogprobGradientRows&);
template void token_logprob_gradient_rows<bfloat16>(bfloat16*, const TokenLogprobGradientRows&);

}  // namespace igf
