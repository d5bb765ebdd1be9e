// The CUDA execution of sample_token: what the code that allocates must know of its launch.
#pragma once

#include "ops/sample_token/sample_token.h"

namespace igf {

// Tokens that a call with a history may choose from: one bit a token is kept in shared memory.
inline constexpr int64_t kMostMarkedTokens = int64_t{1} << 18;

// Words of scratch memory that sample_token_cuda needs at `partials`.
int64_t sample_token_partial_words(const SampleTokenArguments& arguments, const DeviceContext& context);

void sample_token_cuda(const SampleTokenArguments& arguments, uint32_t* partials, const DeviceContext& context);

}  // namespace igf
