// invariant_linear: the checks of a call, the same on every device.
#pragma once

#include "binding/dtype.h"
#include "binding/tensor.h"
#include "ops/invariant_linear/invariant_linear.h"

namespace igf {

// A call whose arguments have been found good; holds the tensors that the pointers in `arguments` come from.
struct InvariantLinearCall {
  Tensor x, weight;
  OptionalTensor bias;
  InvariantLinear arguments{};
};

inline void check_invariant_linear(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  constexpr const char* kOp = "invariant_linear";
  IGF_CHECK(x.dim() == 2 && weight.dim() == 2, kOp, ": x and weight must be matrices");
  IGF_CHECK(x.size(1) == weight.size(1), kOp, ": x has ", x.size(1), " columns, weight ", weight.size(1));
  check_dtype(kOp, "weight", weight, x.scalar_type());
  if (!bias.has_value()) return;
  check_dtype(kOp, "bias", *bias, x.scalar_type());
  check_vector(kOp, "bias", *bias, weight.size(0));
}

// `out` is written through the pointer in the result: the caller keeps it.
inline InvariantLinearCall invariant_linear_call(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                                                 const Tensor& out) {
  constexpr const char* kOp = "invariant_linear";
  check_invariant_linear(x, weight, bias);
  IGF_CHECK(out.dim() == 2 && out.size(0) == x.size(0) && out.size(1) == weight.size(0), kOp, ": out must be [",
            x.size(0), ", ", weight.size(0), "]");
  IGF_CHECK(out.is_contiguous(), kOp, ": out is written in place and must be contiguous");
  IGF_CHECK(out.scalar_type() == x.scalar_type() || out.scalar_type() == ScalarType::Float, kOp,
            ": out must have x's dtype or float32, got dtype number ", static_cast<int>(out.scalar_type()));
  InvariantLinearCall call{dense(x), dense(weight), dense(bias)};
  InvariantLinear& a = call.arguments;
  a.x = const_pointer(call.x);
  a.weight = const_pointer(call.weight);
  a.bias = const_pointer(call.bias);
  a.y = mutable_pointer(out);
  a.rows = x.size(0);
  a.inputs = x.size(1);
  a.outputs = weight.size(0);
  a.element = element_of(kOp, x);
  a.y_element = element_of(kOp, out);
  return call;
}

}  // namespace igf
