// attention_decode on a GPU: what the wrapper hands to the kernels. attention_decode.h says what is computed.
//
// Lengths and pages are read on the device, so a call never waits for it; and nobody can raise an error there. A row with
// a negative length, or one that outgrows its table, gives NaN and appends nothing. Where a page is not in the cache,
// nothing is read and nothing appended, and the tokens that see it give NaN.
#pragma once

#include "device/context.h"
#include "ops/attention_decode/attention_decode.h"

namespace igf {

// The widest keys and values; and the most positions that a row's table, or slots that a cache, may have.
inline constexpr int64_t kMostDecodeWidth = 256;
inline constexpr int64_t kMostDecodePositions = int64_t{1} << 30;

// A [rows, tokens, heads, width] tensor whose last dimension is dense. Strides in elements.
struct AttentionDecodeView {
  const void* data;
  int64_t row_stride, token_stride, head_stride;
};

struct AttentionDecodeCuda {
  AttentionDecodeShape shape;
  Element element;
  AttentionDecodeView q, k, v;
  void *k_cache, *v_cache;  // dense, like all that follows
  const int32_t *block_table, *cache_lens;
  void* out;
};

// How many of DeviceContext's arrival counters a call wants, and floats of scratch, with anything in them. Only shapes,
// strides and pointers are looked at.
int64_t attention_decode_counters(const AttentionDecodeCuda& call);
int64_t attention_decode_partial_floats(const AttentionDecodeCuda& call, const DeviceContext& context);

void attention_decode_cuda(const AttentionDecodeCuda& call, float* partials, const DeviceContext& context);

}  // namespace igf
