// The stable part of LibTorch under short names. Every file that touches torch includes this and nothing else of torch.
//
// Only torch/csrc/stable, torch/headeronly and the C shim may be used: one binary then runs under torch 2.11 and later.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

namespace igf {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using TensorList = std::vector<Tensor>;  // schema `Tensor[]` and `Tensor(a!)[]`
using BoolList = torch::headeronly::HeaderOnlyArrayRef<bool>;  // schema `bool[]`: a view of a bool array

}  // namespace igf
