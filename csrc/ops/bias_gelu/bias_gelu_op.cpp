// bias_gelu: schema, checks, allocation and the CPU registration.
#include "binding/aten.h"
#include "binding/dtype.h"
#include "binding/tensor.h"
#include "ops/bias_gelu/bias_gelu.h"

namespace igf {
namespace {

constexpr const char* kOp = "bias_gelu";

GeluKind kind_of(bool tanh) { return tanh ? GeluKind::kTanh : GeluKind::kExact; }

Tensor bias_gelu_cpu(Tensor x, Tensor bias, bool tanh) {
  check_vector(kOp, "bias", bias, last_size(x));
  const Tensor input = dense(x), bias_f32 = dense(cast(bias, ScalarType::Float));
  const Tensor y = torch::stable::empty_like(input);
  switch_float(kOp, x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    bias_gelu_forward(data<T>(input), data<float>(bias_f32), mutable_data<T>(y), {rows_of(x), last_size(x)},
                      kind_of(tanh));
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_gelu_backward_cpu(Tensor dy, Tensor x, Tensor bias, bool tanh) {
  check_same_sizes(kOp, "dy", dy, x);
  check_dtype(kOp, "dy", dy, x.scalar_type());
  check_vector(kOp, "bias", bias, last_size(x));
  const int64_t rows = rows_of(x), width = last_size(x);
  const int64_t block_rows = bias_gelu_rows_per_block(rows);
  const Tensor gradient = dense(dy), input = dense(x), bias_f32 = dense(cast(bias, ScalarType::Float));
  const Tensor dx = torch::stable::empty_like(input);
  const Tensor partials = new_empty(x, {(rows + block_rows - 1) / block_rows, width}, ScalarType::Float);
  const Tensor dbias = new_empty(x, {width}, ScalarType::Float);
  switch_float(kOp, x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    bias_gelu_backward(data<T>(gradient), data<T>(input), data<float>(bias_f32), mutable_data<T>(dx),
                       mutable_data<float>(partials), mutable_data<float>(dbias), {rows, width}, kind_of(tanh));
  });
  return {dx, cast(dbias, bias.scalar_type())};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("bias_gelu(Tensor x, Tensor bias, bool tanh) -> Tensor");
  m.def("bias_gelu_backward(Tensor dy, Tensor x, Tensor bias, bool tanh) -> (Tensor dx, Tensor dbias)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("bias_gelu", TORCH_BOX(&igf::bias_gelu_cpu));
  m.impl("bias_gelu_backward", TORCH_BOX(&igf::bias_gelu_backward_cpu));
}
