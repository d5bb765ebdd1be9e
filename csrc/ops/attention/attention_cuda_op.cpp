// attention: checks, allocation and registration of the CUDA execution, and which of its kernels serve a call.
#include "ops/attention/attention_cuda.h"

#include <algorithm>

#include "binding/aten.h"
#include "binding/cuda/context.h"
#include "ops/attention/attention_call.h"

namespace igf {

namespace {

using namespace attention;

constexpr int64_t kMostWidth = 256;
constexpr int64_t kMostRows = int64_t{1} << 29;  // of all sequences: places in one, and sums of two, are counted in int
constexpr int64_t kWorkspaceAlignment = 1024;
constexpr int64_t kVectorBytes = 16;

// Which kernels serve a call.
enum class Path { kGeneral, kMma, kHopper };

bool has_tensor_core_kernels(Element element, int64_t width) {
  return element != Element::kFloat && (width == 64 || width == 80 || width == 96 || width == 128);
}

Path path_of(const AttentionShape& shape, const AttentionBatch& batch, Element element, const DeviceContext& context) {
  if (!has_tensor_core_kernels(element, shape.width) || batch.k_rows == 0) return Path::kGeneral;
  return context.architecture == 90 && shape.dropout_p == 0.0f ? Path::kHopper : Path::kMma;
}

// Strides may be anything but 0 over several elements; tensor cores want rows and heads on 16 bytes.
Tensor with_strides(const Tensor& tensor) {
  const Tensor strided = with_row_stride(tensor);
  const bool on_vectors = has_tensor_core_kernels(element_of(kOp, tensor), last_size(tensor));
  const int64_t bytes = static_cast<int64_t>(tensor.element_size());
  bool good = !on_vectors || is_aligned(strided);
  for (int64_t d = 0; d + 1 < strided.dim(); ++d) {
    if (strided.size(d) == 1) continue;
    good = good && strided.stride(d) > 0 && (!on_vectors || strided.stride(d) * bytes % kVectorBytes == 0);
  }
  return good || tensor.numel() == 0 ? strided : dense_copy(tensor);
}

// A stride over one head or one row is never used; here it becomes what it is in a dense tensor, for tensor maps.
template <typename T>
AttentionView<T> strided_view(const Tensor& tensor, T* pointer) {
  AttentionView<T> view = view_of(tensor, pointer);
  if (tensor.size(tensor.dim() - 2) == 1) view.head_stride = last_size(tensor);
  if (all_rows(tensor) == 1) view.row_stride = view.head_stride * tensor.size(tensor.dim() - 2);
  return view;
}

AttentionView<const void> read_view(const Tensor& tensor) { return strided_view(tensor, const_pointer(tensor)); }
AttentionView<void> write_view(const Tensor& tensor) { return strided_view(tensor, mutable_pointer(tensor)); }

AttentionBatch batch_of(const Tensor& q, const Tensor& k, const OptionalTensor& cu_seqlens) {
  const bool packed = cu_seqlens.has_value();
  const AttentionBatch batch{data<int32_t>(cu_seqlens),
                             packed ? cu_seqlens->size(0) - 1 : q.size(0),
                             all_rows(q),
                             all_rows(k),
                             packed ? 0 : q.size(1),
                             packed ? 0 : k.size(1)};
  IGF_CHECK(batch.q_rows <= kMostRows && batch.k_rows <= kMostRows, kOp, ": serves up to ", kMostRows,
            " rows on a GPU, got ", std::max(batch.q_rows, batch.k_rows));
  return batch;
}

// A window that no sequence outgrows is none.
AttentionShape shape_of(const Tensor& q, const Tensor& k, const AttentionBatch& batch, bool causal,
                        std::optional<int64_t> window, double dropout_p, const OptionalTensor& dropout_seed,
                        double scale) {
  const int64_t d = q.dim();
  IGF_CHECK(q.size(d - 1) <= kMostWidth, kOp, ": serves heads of up to ", kMostWidth, " elements on a GPU, got ",
            q.size(d - 1));
  check_dropout(dropout_p, dropout_seed);
  const int64_t longest = batch.cu_seqlens != nullptr ? batch.k_rows : batch.k_length;
  const int64_t seen = window.value_or(0);
  return {q.size(d - 2), k.size(d - 2), q.size(d - 1), causal, seen < longest ? seen : 0, static_cast<float>(scale),
          static_cast<float>(dropout_p), 0};
}

std::tuple<Tensor, Tensor> attention_cuda_op(Tensor q, Tensor k, Tensor v, OptionalTensor cu_seqlens, bool causal,
                                             std::optional<int64_t> window, double dropout_p,
                                             OptionalTensor dropout_seed, double scale) {
  check_inputs(q, k, v, cu_seqlens);
  const DeviceGuard guard(q.get_device_index());
  const DeviceContext context = device_context(q);
  q = with_strides(q), k = with_strides(k), v = with_strides(v), cu_seqlens = dense(cu_seqlens);
  const Tensor out = new_empty_like(q);
  const Tensor lse = new_empty(q, sizes_by_head(q), ScalarType::Float);
  AttentionForwardCall call{};
  call.batch = batch_of(q, k, cu_seqlens);
  call.shape = shape_of(q, k, call.batch, causal, window, dropout_p, dropout_seed, scale);
  call.dropout_seed = dropout_p > 0.0 ? data<int64_t>(dropout_seed) : nullptr;
  call.element = element_of(kOp, q);
  call.q = read_view(q), call.k = read_view(k), call.v = read_view(v);
  call.out = write_view(out);
  call.lse = mutable_data<float>(lse);
  if (call.batch.q_rows == 0 || call.shape.heads == 0) return {out, lse};
  switch (path_of(call.shape, call.batch, call.element, context)) {
    case Path::kGeneral: attention_general_forward(call, context); break;
    case Path::kMma: attention_mma_forward(call, context); break;
    case Path::kHopper: attention_hopper_forward(call, context); break;
  }
  return {out, lse};
}

// Calls work(call) with a workspace of workspace_bytes(call).
template <typename Bytes, typename Work>
void with_workspace(AttentionBackwardCall& call, const DeviceContext& context, const Tensor& like, const Bytes& bytes,
                    const Work& work) {
  const int64_t floats = ceil_div(bytes(call, context) + kWorkspaceAlignment, sizeof(float));
  const Tensor workspace = new_empty(like, {floats}, ScalarType::Float);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mutable_pointer(workspace));
  call.workspace = reinterpret_cast<void*>((begin + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment);
  work(call, context);
}

std::tuple<Tensor, Tensor, Tensor> attention_backward_cuda_op(
    Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, OptionalTensor cu_seqlens, bool causal,
    std::optional<int64_t> window, double dropout_p, OptionalTensor dropout_seed, double scale, bool deterministic) {
  check_inputs(q, k, v, cu_seqlens);
  check_gradient(dout, q, out, lse);
  const DeviceGuard guard(q.get_device_index());
  const DeviceContext context = device_context(q);
  q = with_strides(q), k = with_strides(k), v = with_strides(v), cu_seqlens = dense(cu_seqlens);
  out = with_strides(out), dout = with_strides(dout), lse = dense(lse);
  AttentionBackwardCall call{};
  call.batch = batch_of(q, k, cu_seqlens);
  call.shape = shape_of(q, k, call.batch, causal, window, dropout_p, dropout_seed, scale);
  if (q.numel() == 0 || k.numel() == 0) {  // nobody sees anything
    const auto zeros = [](const Tensor& like) { return new_zeros(like, sizes_of(like), like.scalar_type()); };
    return {zeros(q), zeros(k), zeros(v)};
  }
  const Tensor dq = new_empty_like(q), dk = new_empty_like(k), dv = new_empty_like(k);
  call.dropout_seed = dropout_p > 0.0 ? data<int64_t>(dropout_seed) : nullptr;
  call.element = element_of(kOp, q);
  call.deterministic = deterministic;
  call.q = read_view(q), call.k = read_view(k), call.v = read_view(v);
  call.out = read_view(out), call.dout = read_view(dout);
  call.lse = data<float>(lse);
  call.dq = write_view(dq), call.dk = write_view(dk), call.dv = write_view(dv);
  switch (path_of(call.shape, call.batch, call.element, context)) {
    case Path::kGeneral:
      with_workspace(call, context, q, attention_general_workspace, attention_general_backward);
      break;
    case Path::kMma:
      with_workspace(call, context, q, attention_mma_workspace, attention_mma_backward);
      break;
    case Path::kHopper:
      with_workspace(call, context, q, attention_hopper_workspace, attention_hopper_backward);
      break;
  }
  return {dq, dk, dv};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("attention", TORCH_BOX(&igf::attention_cuda_op));
  m.impl("attention_backward", TORCH_BOX(&igf::attention_backward_cuda_op));
}
