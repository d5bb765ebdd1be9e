// layer_norm: checks, allocation and registration of the CUDA execution.
#include "binding/aten.h"
#include "binding/cuda/context.h"
#include "ops/layer_norm/layer_norm.h"

namespace igf {
namespace {

constexpr const char* kOp = "layer_norm";

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_cuda(Tensor x, OptionalTensor residual, Tensor weight, Tensor bias,
                                                           double eps) {
  check_vector(kOp, "weight", weight, last_size(x));
  check_vector(kOp, "bias", bias, last_size(x));
  check_dtype(kOp, "bias", bias, weight.scalar_type());
  if (residual.has_value()) {
    check_same_sizes(kOp, "residual", *residual, x);
    check_dtype(kOp, "residual", *residual, x.scalar_type());
  }
  const DeviceGuard guard(x.get_device_index());
  x = dense(x), residual = dense(residual), weight = dense(weight), bias = dense(bias);
  const int64_t rows = rows_of(x);
  const Tensor y = new_empty_like(x);
  const Tensor summed = residual.has_value() ? new_empty_like(x) : new_empty(x, {0}, x.scalar_type());
  const Tensor mean = new_empty(x, {rows}, ScalarType::Float);
  const Tensor rstd = new_empty(x, {rows}, ScalarType::Float);
  LayerNormForward arguments{};
  arguments.x = const_pointer(x);
  arguments.residual = const_pointer(residual);
  arguments.weight = const_pointer(weight);
  arguments.bias = const_pointer(bias);
  arguments.y = mutable_pointer(y);
  arguments.summed = residual.has_value() ? mutable_pointer(summed) : nullptr;
  arguments.mean = mutable_data<float>(mean);
  arguments.rstd = mutable_data<float>(rstd);
  arguments.rows = rows;
  arguments.width = last_size(x);
  arguments.eps = static_cast<float>(eps);
  arguments.element = element_of(kOp, x);
  arguments.weight_element = element_of(kOp, weight);
  arguments.aligned = is_aligned(x) && is_aligned(residual) && is_aligned(weight) && is_aligned(bias);
  layer_norm_forward_cuda(arguments, device_context(x));
  return {y, summed, mean, rstd};
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
