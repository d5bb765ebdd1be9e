// Matrix products into given memory, by cuBLAS; under the emulator, on the CPU.
//
// Any matrix may be a view whose rows or columns have a leading dimension of their own: nothing is copied.
#pragma once

#include "binding/aten.h"

#if !defined(IGF_SIMT)

#include <torch/csrc/stable/c/shim.h>

// Found in the libraries a torch with CUDA brings along. Weak: the library also loads under a CPU-only torch, where
// their addresses are 0. The declaration is cuBLAS's own (cuBLAS Library User's Guide, cublasGemmEx), its enumerations
// written as int.
#pragma weak torch_get_current_cuda_blas_handle
extern "C" int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                            const void* a, int type_a, int leading_a, const void* b, int type_b, int leading_b,
                            const void* beta, void* c, int type_c, int leading_c, int compute_type, int algorithm);
#pragma weak cublasGemmEx

#endif

namespace igf {

// out = a @ b, all of one dtype; sums in f32, rounded to out's dtype once. As torch's own products: partial sums of a
// long product may be added in 16 bits unless torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction (fp16)
// is off, and float32 is multiplied as TF32 where torch is told so.
inline void matmul(const Tensor& out, const Tensor& a, const Tensor& b) {
  call_aten<Tensor>("aten::mm", "out", a, b, out);
}

#if defined(IGF_SIMT)

inline void matmul_accumulate_f32(const Tensor& out, const Tensor& a, const Tensor& b, float alpha, bool add) {
  const Tensor wide_a = cast(a, ScalarType::Float), wide_b = cast(b, ScalarType::Float);
  cpu_addmm_out(out, wide_a, wide_b, add ? 1.0 : 0.0, alpha);
}

#else

namespace detail {

// The numbers of library_types.h and cublas_api.h.
constexpr int kCublasFloat = 0, kCublasHalf = 2, kCublasBfloat16 = 14;  // CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
constexpr int kCublasAsIs = 0, kCublasTransposed = 1;                   // CUBLAS_OP_N, CUBLAS_OP_T
constexpr int kCublasComputeFloat = 68, kCublasDefaultAlgorithm = -1;   // CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT

inline int cublas_type(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return kCublasFloat;
    case ScalarType::Half: return kCublasHalf;
    case ScalarType::BFloat16: return kCublasBfloat16;
    default: fail("matmul: dtype number ", static_cast<int>(tensor.scalar_type()), " is not served");
  }
}

// A row-major matrix as column-major cuBLAS sees it: its transpose, read as is or turned.
struct CublasOperand {
  int operation;
  int leading;
};

inline CublasOperand cublas_operand(const Tensor& matrix) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  if (matrix.stride(1) == 1 || columns == 1) {
    return {kCublasAsIs, static_cast<int>(rows == 1 ? columns : matrix.stride(0))};
  }
  IGF_CHECK(matrix.stride(0) == 1 || rows == 1, "matmul: a matrix must have rows or columns without gaps");
  return {kCublasTransposed, static_cast<int>(columns == 1 ? rows : matrix.stride(1))};
}

}  // namespace detail

// out = alpha * a @ b, added to what out holds where `add`: out f32 with dense rows, a and b of one dtype, sums in f32.
// ATen has such an op (addmm.dtype_out), but the stable ABI cannot hand over its two scalars. The order of additions is
// cuBLAS's: equal bits on repeat on one device and version, as cuBLAS promises for one stream.
inline void matmul_accumulate_f32(const Tensor& out, const Tensor& a, const Tensor& b, float alpha, bool add) {
  IGF_CHECK(&cublasGemmEx != nullptr && &torch_get_current_cuda_blas_handle != nullptr,
            "matmul: cuBLAS is not among the libraries this torch loaded; install a torch with CUDA from its own wheels");
  void* handle = nullptr;  // torch's, with its stream, workspace and choice about TF32
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&handle));
  const float beta = add ? 1.0f : 0.0f;
  const detail::CublasOperand left = detail::cublas_operand(b), right = detail::cublas_operand(a);
  const detail::CublasOperand result = detail::cublas_operand(out);
  IGF_CHECK(result.operation == detail::kCublasAsIs, "matmul: the result must have rows without gaps");
  const int status = cublasGemmEx(
      handle, left.operation, right.operation, static_cast<int>(out.size(1)), static_cast<int>(out.size(0)),
      static_cast<int>(a.size(1)), &alpha, const_pointer(b), detail::cublas_type(b), left.leading, const_pointer(a),
      detail::cublas_type(a), right.leading, &beta, mutable_pointer(out), detail::cublas_type(out), result.leading,
      detail::kCublasComputeFloat, detail::kCublasDefaultAlgorithm);
  IGF_CHECK(status == 0, "matmul: cuBLAS gave status ", status, " for [", out.size(0), ", ", a.size(1), "] @ [",
            b.size(0), ", ", out.size(1), "]");
}

#endif

}  // namespace igf
