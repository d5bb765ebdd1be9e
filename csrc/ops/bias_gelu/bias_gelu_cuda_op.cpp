// bias_gelu: checks, allocation and registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/bias_gelu/bias_gelu.h"

namespace igf {
namespace {

constexpr const char* kOp = "bias_gelu";

GeluKind kind_of(bool tanh) { return tanh ? GeluKind::kTanh : GeluKind::kExact; }

Tensor bias_gelu_cuda(Tensor x, Tensor bias, bool tanh) {
  check_vector(kOp, "bias", bias, last_size(x));
  const DeviceGuard guard(x.get_device_index());
  x = dense(x), bias = dense(bias);
  const Tensor y = new_empty_like(x);
  BiasGeluForward arguments{};
  arguments.x = const_pointer(x);
  arguments.bias = const_pointer(bias);
  arguments.y = mutable_pointer(y);
  arguments.rows = rows_of(x);
  arguments.width = last_size(x);
  arguments.kind = kind_of(tanh);
  arguments.element = element_of(kOp, x);
  arguments.bias_element = element_of(kOp, bias);
  arguments.aligned = is_aligned(x) && is_aligned(y);
  bias_gelu_forward_cuda(arguments, device_context(x));
  return y;
}

std::tuple<Tensor, Tensor> bias_gelu_backward_cuda_op(Tensor dy, Tensor x, Tensor bias, bool tanh) {
  check_same_sizes(kOp, "dy", dy, x);
  check_dtype(kOp, "dy", dy, x.scalar_type());
  check_vector(kOp, "bias", bias, last_size(x));
  const DeviceGuard guard(x.get_device_index());
  dy = dense(dy), x = dense(x), bias = dense(bias);
  const Tensor dx = new_empty_like(x);
  const Tensor dbias = new_empty_like(bias);
  const DeviceContext context = device_context(x);
  BiasGeluBackward arguments{};
  arguments.dy = const_pointer(dy);
  arguments.x = const_pointer(x);
  arguments.bias = const_pointer(bias);
  arguments.dx = mutable_pointer(dx);
  arguments.dbias = mutable_pointer(dbias);
  arguments.rows = rows_of(x);
  arguments.width = last_size(x);
  arguments.kind = kind_of(tanh);
  arguments.element = element_of(kOp, x);
  arguments.bias_element = element_of(kOp, bias);
  arguments.aligned = is_aligned(dy) && is_aligned(x) && is_aligned(dx);
  const int64_t partial_rows = bias_gelu_partial_rows(arguments, context);
  const Tensor partials = new_empty(x, {partial_rows, arguments.width}, ScalarType::Float);
  arguments.partials = mutable_data<float>(partials);
  bias_gelu_backward_cuda(arguments, context);
  return {dx, dbias};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("bias_gelu", TORCH_BOX(&igf::bias_gelu_cuda));
  m.impl("bias_gelu_backward", TORCH_BOX(&igf::bias_gelu_backward_cuda_op));
}
