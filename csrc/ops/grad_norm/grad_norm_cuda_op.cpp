// grad_norm: the table of tensors and registration of the CUDA execution.
#include "binding/cuda/context.h"
#include "ops/grad_norm/grad_norm.h"

namespace igf {
namespace {

constexpr const char* kOp = "grad_norm";

Tensor grad_norm_cuda_op(TensorList tensors) {
  IGF_CHECK(!tensors.empty(), kOp, ": tensors must hold at least one tensor");
  const Tensor& like = tensors.front();
  const DeviceGuard guard(like.get_device_index());
  std::vector<Tensor> kept;  // dense copies live until the launch
  kept.reserve(tensors.size());
  TensorTableBuilder<GradNormRow> table(kGradNormChunk);
  for (const Tensor& tensor : tensors) {
    kept.push_back(dense(tensor));
    GradNormRow row{};
    row.data = const_pointer(kept.back());
    row.size = tensor.numel();
    row.element = element_of(kOp, tensor);
    table.add(row, row.size);
  }
  const Tensor memory = new_empty(like, {table.word_count()}, ScalarType::Long);
  const Tensor partials = new_empty(like, {table.chunks()}, ScalarType::Double);
  const Tensor norm = new_empty(like, {}, ScalarType::Float);
  GradNormCuda arguments{};
  arguments.table = table.table(data<int64_t>(memory));
  arguments.partials = mutable_data<double>(partials);
  arguments.norm = mutable_data<float>(norm);
  grad_norm_cuda(arguments, table.words(), mutable_data<int64_t>(memory), device_context(like));
  return norm;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("grad_norm", TORCH_BOX(&igf::grad_norm_cuda_op));
}
