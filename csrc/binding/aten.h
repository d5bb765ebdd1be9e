// Calling ATen from a stable-ABI op: any operator through the dispatcher, and matmuls into given memory.
//
// Arguments of call_aten are passed in schema order, all of them (defaults are not filled in), with exactly these types:
//   Tensor -> Tensor            Tensor? -> OptionalTensor        int / SymInt -> int64_t       float -> double
//   bool -> bool                int[] / SymInt[] -> std::vector<int64_t>                       bool[N] -> BoolList
//   Tensor[] -> TensorList      ScalarType? -> std::optional<ScalarType>   int? -> std::optional<int64_t>
// `Scalar` cannot be passed, and `str` leaks a few bytes a call before torch 2.15: choose another overload or write loops.
//
//   auto [y, mean, rstd] = call_aten<Tensor, Tensor, Tensor>("aten::native_layer_norm", "", x, shape, w, b, eps);
//   Tensor z = call_aten<Tensor>("aten::mul", "Tensor", x, y);
#pragma once

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <algorithm>
#include <array>
#include <utility>

#include "binding/check.h"
#include "binding/torch.h"

namespace igf {

namespace detail {

template <typename... Returns, size_t... I>
std::tuple<Returns...> take_returns(const StableIValue* stack, std::index_sequence<I...>) {
  return std::tuple<Returns...>{torch::stable::detail::to<Returns>(stack[I])...};
}

}  // namespace detail

// The result is the value itself for one return type and a tuple for several.
template <typename... Returns, typename... Arguments>
auto call_aten(const char* name, const char* overload, const Arguments&... arguments) {
  constexpr size_t slots = std::max(sizeof...(Arguments), sizeof...(Returns));
  std::array<StableIValue, slots> stack{torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  if constexpr (sizeof...(Returns) == 1) {
    return torch::stable::detail::to<Returns...>(stack[0]);
  } else {
    return detail::take_returns<Returns...>(stack.data(), std::index_sequence_for<Returns...>{});
  }
}

// The transposed view of a matrix; costs nothing, and the matmuls below read it without a copy.
inline Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

// Rows [start, start + length) as a view.
inline Tensor rows_view(const Tensor& tensor, int64_t start, int64_t length) {
  Tensor whole = tensor;
  return torch::stable::narrow(whole, 0, start, length);
}

inline Tensor cast(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
}

// CPU only: out = a @ b, written into out's memory (out may be a view).
inline void cpu_mm_out(const Tensor& out, const Tensor& a, const Tensor& b) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), a.get(), b.get()));
}

// CPU only: out = beta * out + alpha * (a @ b), in out's memory. With beta = 0 what out held before is not read.
inline void cpu_addmm_out(const Tensor& out, const Tensor& a, const Tensor& b, double beta = 1.0, double alpha = 1.0) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_addmm_out(out.get(), out.get(), a.get(), b.get(), beta, alpha));
}

// CPU only: batched out[i] = a[i] @ b[i] and out[i] = beta * out[i] + alpha * (a[i] @ b[i]).
inline void cpu_bmm_out(const Tensor& out, const Tensor& a, const Tensor& b) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_bmm_out(out.get(), a.get(), b.get()));
}

inline void cpu_baddbmm_out(const Tensor& out, const Tensor& a, const Tensor& b, double beta, double alpha) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_baddbmm_out(out.get(), out.get(), a.get(), b.get(), beta, alpha));
}

}  // namespace igf
