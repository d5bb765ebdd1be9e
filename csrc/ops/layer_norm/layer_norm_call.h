// layer_norm: the checks of a forward call and its results, the same on every device.
#pragma once

#include "binding/dtype.h"
#include "binding/tensor.h"
#include "ops/layer_norm/layer_norm.h"

namespace igf {

// A call whose arguments have been found good; holds the tensors that the pointers in `arguments` come from.
struct LayerNormCall {
  Tensor x, weight, bias;
  OptionalTensor residual;
  Tensor y, summed, mean, rstd;
  LayerNormForward arguments{};
};

inline LayerNormCall layer_norm_call(const Tensor& x, const OptionalTensor& residual, const Tensor& weight,
                                     const Tensor& bias, double eps) {
  constexpr const char* kOp = "layer_norm";
  IGF_CHECK(x.dim() >= 1, kOp, ": x needs at least one dimension");
  check_vector(kOp, "weight", weight, last_size(x));
  check_vector(kOp, "bias", bias, last_size(x));
  check_dtype(kOp, "bias", bias, weight.scalar_type());
  if (weight.scalar_type() != ScalarType::Float) check_dtype(kOp, "weight", weight, x.scalar_type());
  if (residual.has_value()) {
    check_same_sizes(kOp, "residual", *residual, x);
    check_dtype(kOp, "residual", *residual, x.scalar_type());
  }
  const int64_t rows = rows_of(x);
  const Tensor input = dense(x);
  // An op may not return its own input: without a residual there is no sum.
  LayerNormCall call{input, dense(weight), dense(bias), dense(residual), new_empty_like(input),
                     residual.has_value() ? new_empty_like(input) : new_empty(input, {0}, x.scalar_type()),
                     new_empty(input, {rows}, ScalarType::Float), new_empty(input, {rows}, ScalarType::Float)};
  LayerNormForward& a = call.arguments;
  a.x = const_pointer(call.x);
  a.residual = const_pointer(call.residual);
  a.weight = const_pointer(call.weight);
  a.bias = const_pointer(call.bias);
  a.y = mutable_pointer(call.y);
  a.summed = residual.has_value() ? mutable_pointer(call.summed) : nullptr;
  a.mean = mutable_data<float>(call.mean);
  a.rstd = mutable_data<float>(call.rstd);
  a.rows = rows;
  a.width = last_size(x);
  a.eps = static_cast<float>(eps);
  a.element = element_of(kOp, x);
  a.weight_element = element_of(kOp, weight);
  return call;
}

}  // namespace igf
