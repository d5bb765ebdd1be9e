// attention_decode: registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/attention_decode/attention_decode_checks.h"
#include "ops/attention_decode/attention_decode_cuda.h"

namespace igf {
namespace {

constexpr const char* kOp = "attention_decode";

// A view of the rows, tokens and heads as they lie; only a last dimension with gaps is copied.
Tensor with_dense_rows(const Tensor& tensor) {
  return tensor.size(3) == 1 || tensor.stride(3) == 1 ? tensor : dense(tensor);
}

AttentionDecodeView view_of(const Tensor& tensor) {
  return {const_pointer(tensor), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

void check_limits(const AttentionDecodeShape& s) {
  IGF_CHECK(s.width <= kMostDecodeWidth, kOp, ": q must have at most ", kMostDecodeWidth,
            " columns on a GPU, got ", s.width);
  IGF_CHECK(s.table_width <= kMostDecodePositions / s.page && s.pages <= kMostDecodePositions / s.page, kOp,
            ": on a GPU a row of block_table and the cache have at most ", kMostDecodePositions, " slots, got ",
            s.table_width, " and ", s.pages, " pages of ", s.page);
  IGF_CHECK(s.kv_heads <= kMostDecodePositions / s.width && s.tokens <= kMostDecodePositions / s.heads, kOp,
            ": on a GPU there are at most ", kMostDecodePositions, " numbers in a slot and as many queries in a row, got ",
            s.kv_heads, " heads of ", s.width, ", and ", s.tokens, " tokens of ", s.heads, " heads");
}

Tensor attention_decode_device(Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, Tensor block_table,
                               Tensor cache_lens, std::optional<int64_t> window, double scale) {
  const DeviceGuard guard(q.get_device_index());
  const AttentionDecodeTensors tensors{with_dense_rows(q), with_dense_rows(k), with_dense_rows(v), k_cache, v_cache,
                                       dense(block_table), dense(cache_lens)};
  check_decode_inputs(tensors);
  const AttentionDecodeShape shape = decode_shape(tensors, window, scale);
  check_limits(shape);
  const Tensor out =
      new_empty(q, {shape.rows, shape.tokens, shape.heads, shape.width}, q.scalar_type());
  const AttentionDecodeCuda call{shape,
                                 element_of(kOp, q),
                                 view_of(tensors.q),
                                 view_of(tensors.k),
                                 view_of(tensors.v),
                                 mutable_data<void>(k_cache),
                                 mutable_data<void>(v_cache),
                                 data<int32_t>(tensors.block_table),
                                 data<int32_t>(tensors.cache_lens),
                                 mutable_data<void>(out)};
  const DeviceContext context = device_context(q, attention_decode_counters(call));
  const int64_t floats = attention_decode_partial_floats(call, context);
  if (floats == 0) {
    attention_decode_cuda(call, nullptr, context);
  } else {
    const Tensor partials = new_empty(q, {floats}, ScalarType::Float);
    attention_decode_cuda(call, mutable_data<float>(partials), context);
  }
  return out;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("attention_decode", TORCH_BOX(&igf::attention_decode_device));
}
