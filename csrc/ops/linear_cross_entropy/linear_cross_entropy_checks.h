// linear_cross_entropy: what its CPU and its CUDA execution require of their inputs.
#pragma once

#include "binding/tensor.h"

namespace igf {

inline void check_cross_entropy_inputs(const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                                       const OptionalTensor& loss_mask) {
  constexpr const char* kOp = "linear_cross_entropy";
  IGF_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1), kOp,
            ": hidden must be [N, D] and weight [V, D]");
  IGF_CHECK(weight.size(0) > 0, kOp, ": weight must have at least one row");
  check_dtype(kOp, "weight", weight, hidden.scalar_type());
  check_vector(kOp, "targets", targets, hidden.size(0));
  check_dtype(kOp, "targets", targets, ScalarType::Long);
  if (loss_mask.has_value()) {
    check_vector(kOp, "loss_mask", *loss_mask, hidden.size(0));
    check_dtype(kOp, "loss_mask", *loss_mask, ScalarType::Bool);
  }
}

}  // namespace igf
