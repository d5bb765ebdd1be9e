// layer_norm: schema and the CPU execution; backward is ATen's native_layer_norm_backward.
#include "binding/aten.h"
#include "ops/layer_norm/layer_norm_call.h"

namespace igf {
namespace {

constexpr const char* kOp = "layer_norm";

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_cpu(Tensor x, OptionalTensor residual, Tensor weight, Tensor bias,
                                                          double eps) {
  const LayerNormCall call = layer_norm_call(x, residual, weight, bias, eps);
  layer_norm_forward_cpu(call.arguments, eps);
  return {call.y, call.summed, call.mean, call.rstd};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward_cpu(Tensor dy, OptionalTensor dsummed, Tensor summed,
                                                           Tensor weight, Tensor mean, Tensor rstd) {
  check_same_sizes(kOp, "dy", dy, summed);
  check_vector(kOp, "mean", mean, rows_of(summed));
  check_vector(kOp, "rstd", rstd, rows_of(summed));
  std::vector<int64_t> statistics(summed.sizes().begin(), summed.sizes().end());
  statistics.back() = 1;
  const std::vector<int64_t> normalized{last_size(summed)};
  const Tensor weight_f32 = cast(weight, ScalarType::Float);
  const bool wanted[3] = {true, true, true};
  auto [dx, dweight, dbias] = call_aten<Tensor, Tensor, Tensor>(
      "aten::native_layer_norm_backward", "", dense(dy), dense(summed), normalized,
      torch::stable::reshape(mean, statistics), torch::stable::reshape(rstd, statistics), OptionalTensor(weight_f32),
      OptionalTensor(weight_f32), BoolList(wanted, 3));
  const ScalarType dtype = weight.scalar_type();
  if (dsummed.has_value()) dx = torch::stable::subtract(dx, *dsummed, -1.0);
  return {dx, cast(dweight, dtype), cast(dbias, dtype)};
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  // summed is empty when there is no residual: an op may not return its own input.
  m.def(
      "layer_norm(Tensor x, Tensor? residual, Tensor weight, Tensor bias, float eps) -> "
      "(Tensor y, Tensor summed, Tensor mean, Tensor rstd)");
  // dx includes dsummed, the gradient that reached x + residual from elsewhere.
  m.def(
      "layer_norm_backward(Tensor dy, Tensor? dsummed, Tensor summed, Tensor weight, Tensor mean, Tensor rstd) -> "
      "(Tensor dx, Tensor dweight, Tensor dbias)");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) {
  m.impl("layer_norm", TORCH_BOX(&igf::layer_norm_cpu));
  m.impl("layer_norm_backward", TORCH_BOX(&igf::layer_norm_backward_cpu));
}
