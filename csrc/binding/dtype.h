// From a tensor's dtype to a C++ storage type, and to the element type that kernels are told.
#pragma once

#include "binding/check.h"
#include "binding/torch.h"
#include "cpu/scalar.h"
#include "device/context.h"

namespace igf {

// Calls body(T{}) with T = float, bfloat16 or half; any other dtype is an error naming the op.
//
//   switch_float("bias_gelu", x.scalar_type(), [&](auto tag) {
//     using T = decltype(tag);
//     bias_gelu_forward(data<T>(x), ...);
//   });
template <typename Body>
void switch_float(const char* op, ScalarType dtype, const Body& body) {
  switch (dtype) {
    case ScalarType::Float: return body(float{});
    case ScalarType::BFloat16: return body(bfloat16{});
    case ScalarType::Half: return body(half{});
    default: IGF_CHECK(false, op, ": serves float32, bfloat16 and float16, got dtype number ", static_cast<int>(dtype));
  }
}

// The element type of a tensor; any but f32, bf16 and f16 is an error naming the op.
inline Element element_of(const char* op, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Element::kFloat;
    case ScalarType::BFloat16: return Element::kBfloat16;
    case ScalarType::Half: return Element::kHalf;
    default:
      IGF_CHECK(false, op, ": serves float32, bfloat16 and float16, got dtype number ",
                static_cast<int>(tensor.scalar_type()));
  }
}

inline bool is_reduced(ScalarType dtype) { return dtype == ScalarType::BFloat16 || dtype == ScalarType::Half; }

}  // namespace igf
