// Shape checks, data pointers and allocation for op files.
#pragma once

#include "binding/check.h"
#include "binding/torch.h"

namespace igf {

// Product of all sizes but the last: the number of rows of a row-wise op on [..., D].
inline int64_t rows_of(const Tensor& tensor) {
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < tensor.dim(); ++d) rows *= tensor.size(d);
  return rows;
}

inline int64_t last_size(const Tensor& tensor) { return tensor.size(tensor.dim() - 1); }

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != b.size(d)) return false;
  }
  return true;
}

inline void check_dtype(const char* op, const char* name, const Tensor& tensor, ScalarType dtype) {
  IGF_CHECK(tensor.scalar_type() == dtype, op, ": ", name, " has dtype number ", static_cast<int>(tensor.scalar_type()),
            ", needs ", static_cast<int>(dtype));
}

inline void check_vector(const char* op, const char* name, const Tensor& tensor, int64_t size) {
  IGF_CHECK(tensor.dim() == 1 && tensor.size(0) == size, op, ": ", name, " must be a vector of ", size, " elements");
}

inline void check_same_sizes(const char* op, const char* name, const Tensor& tensor, const Tensor& like) {
  IGF_CHECK(same_sizes(tensor, like), op, ": ", name, " has another shape than the tensor it goes with");
}

// The tensor itself when its elements lie densely in row-major order, else a dense copy.
inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline OptionalTensor dense(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(dense(*tensor)) : std::nullopt;
}

// Plain pointers. T may be float, double, int32_t, int64_t, bool, igf::bfloat16, igf::half ...: the caller has checked
// the dtype (see dtype.h). Dense tensors only.
template <typename T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
const T* data(const OptionalTensor& tensor) {
  return tensor.has_value() ? data<T>(*tensor) : nullptr;
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
T* mutable_data(const OptionalTensor& tensor) {
  return tensor.has_value() ? mutable_data<T>(*tensor) : nullptr;
}

// Untyped, for the argument structs of kernels; null for none.
inline const void* const_pointer(const OptionalTensor& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr() : nullptr;
}

// An uninitialised tensor on the device of `like`.
inline Tensor new_empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType dtype) {
  return torch::stable::new_empty(like, sizes, dtype);
}

inline Tensor new_zeros(const Tensor& like, std::vector<int64_t> sizes, ScalarType dtype) {
  return torch::stable::new_zeros(like, sizes, dtype);
}

}  // namespace igf
