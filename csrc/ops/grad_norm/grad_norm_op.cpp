// grad_norm: schema, the list of blocks and the CPU execution.
#include "ops/grad_norm/grad_norm.h"

#include <algorithm>
#include <cmath>

#include "binding/tensor.h"

namespace igf {
namespace {

constexpr const char* kOp = "grad_norm";

Element element_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Element::kFloat;
    case ScalarType::BFloat16: return Element::kBfloat16;
    case ScalarType::Half: return Element::kHalf;
    default:
      IGF_CHECK(false, kOp, ": serves float32, bfloat16 and float16, got dtype number ",
                static_cast<int>(tensor.scalar_type()));
  }
  return Element::kFloat;
}

// Blocks of one tensor, in order; a block never spans two tensors.
void append_blocks(const Tensor& tensor, std::vector<GradNormBlock>& blocks) {
  const Element element = element_of(tensor);
  const int64_t item_bytes = static_cast<int64_t>(element_bytes(element));
  const char* bytes = data<char>(tensor);
  const int64_t size = tensor.numel();
  for (int64_t first = 0; first < size; first += kGradNormBlock) {
    blocks.push_back({bytes + first * item_bytes, std::min(kGradNormBlock, size - first), element});
  }
}

Tensor grad_norm_cpu(TensorList tensors) {
  IGF_CHECK(!tensors.empty(), kOp, ": tensors must hold at least one tensor");
  std::vector<Tensor> kept;  // dense copies live until the sums are done
  kept.reserve(tensors.size());
  std::vector<GradNormBlock> blocks;
  for (const Tensor& tensor : tensors) {
    kept.push_back(dense(tensor));
    append_blocks(kept.back(), blocks);
  }
  std::vector<double> partials(blocks.size());
  grad_norm_partials(blocks.data(), static_cast<int64_t>(blocks.size()), partials.data());
  double total = 0.0;
  for (const double partial : partials) total += partial;
  const Tensor norm = new_empty(tensors.front(), {}, ScalarType::Float);
  *mutable_data<float>(norm) = static_cast<float>(std::sqrt(total));
  return norm;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) { m.def("grad_norm(Tensor[] tensors) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, CPU, m) { m.impl("grad_norm", TORCH_BOX(&igf::grad_norm_cpu)); }
