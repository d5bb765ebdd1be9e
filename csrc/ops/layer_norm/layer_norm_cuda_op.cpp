// layer_norm: checks of backward, allocation and registration of the CUDA execution.
#include "binding/aten.h"
#include "binding/cuda/context.h"
#include "ops/layer_norm/layer_norm_call.h"

namespace igf {
namespace {

constexpr const char* kOp = "layer_norm";

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_cuda(Tensor x, OptionalTensor residual, Tensor weight, Tensor bias,
                                                           double eps) {
  const DeviceGuard guard(x.get_device_index());
  LayerNormCall call = layer_norm_call(x, residual, weight, bias, eps);
  call.arguments.aligned =
      is_aligned(call.x) && is_aligned(call.residual) && is_aligned(call.weight) && is_aligned(call.bias);
  layer_norm_forward_cuda(call.arguments, device_context(x));
  return {call.y, call.summed, call.mean, call.rstd};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward_cuda_op(Tensor dy, OptionalTensor dsummed, Tensor summed,
                                                               Tensor weight, Tensor mean, Tensor rstd) {
  check_same_sizes(kOp, "dy", dy, summed);
  check_dtype(kOp, "dy", dy, summed.scalar_type());
  check_vector(kOp, "mean", mean, rows_of(summed));
  check_vector(kOp, "rstd", rstd, rows_of(summed));
  if (dsummed.has_value()) {
    check_same_sizes(kOp, "dsummed", *dsummed, summed);
    check_dtype(kOp, "dsummed", *dsummed, summed.scalar_type());
  }
  const DeviceGuard guard(summed.get_device_index());
  dy = dense(dy), dsummed = dense(dsummed), summed = dense(summed), weight = dense(weight);
  const Tensor dx = new_empty_like(summed);
  const Tensor dweight = new_empty_like(weight);
  const Tensor dbias = new_empty_like(weight);
  const DeviceContext context = device_context(summed);
  LayerNormBackward arguments{};
  arguments.dy = const_pointer(dy);
  arguments.dsummed = const_pointer(dsummed);
  arguments.summed = const_pointer(summed);
  arguments.weight = const_pointer(weight);
  arguments.mean = data<float>(mean);
  arguments.rstd = data<float>(rstd);
  arguments.dx = mutable_pointer(dx);
  arguments.dweight = mutable_pointer(dweight);
  arguments.dbias = mutable_pointer(dbias);
  arguments.rows = rows_of(summed);
  arguments.width = last_size(summed);
  arguments.element = element_of(kOp, summed);
  arguments.weight_element = element_of(kOp, weight);
  arguments.aligned = is_aligned(dy) && is_aligned(dsummed) && is_aligned(summed) && is_aligned(weight);
  const int64_t partial_rows = layer_norm_partial_rows(arguments, context);
  const Tensor partials = new_empty(summed, {2, partial_rows, arguments.width}, ScalarType::Float);
  arguments.partials = mutable_data<float>(partials);
  layer_norm_backward_cuda(arguments, context);
  return {dx, dweight, dbias};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("layer_norm", TORCH_BOX(&igf::layer_norm_cuda));
  m.impl("layer_norm_backward", TORCH_BOX(&igf::layer_norm_backward_cuda_op));
}
