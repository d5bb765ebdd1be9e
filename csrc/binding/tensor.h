// Shape checks, data pointers and allocation for op files.
#pragma once

#include "binding/check.h"
#include "binding/torch.h"
#if defined(IGF_SIMT)
#include "simt/buffers.h"
#endif

namespace igf {

namespace detail {

#if defined(IGF_SIMT)

// Bytes from the first to the last element, gaps included.
inline size_t span_bytes(const Tensor& tensor) {
  if (tensor.numel() == 0) return 0;
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return static_cast<size_t>(last + 1) * tensor.element_size();
}

inline uintptr_t address_of(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()); }

// The emulator knows the memory a kernel may touch by what the words below hand out.
inline void handed_out(const Tensor& tensor, bool read_only) {
  simt::buffers().add(address_of(tensor), span_bytes(tensor), tensor.element_size(), read_only);
}
inline Tensor allocated(Tensor tensor, bool fill) {
  simt::buffers().allocated(address_of(tensor), span_bytes(tensor), fill);
  return tensor;
}
inline Tensor copied(Tensor copy, const Tensor& original) {
  simt::buffers().name_copy(address_of(copy), span_bytes(copy), address_of(original));
  return copy;
}

#else

inline void handed_out(const Tensor&, bool) {}
inline Tensor allocated(Tensor tensor, bool) { return tensor; }
inline Tensor copied(Tensor copy, const Tensor&) { return copy; }

#endif

}  // namespace detail

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
  return tensor.is_contiguous() ? tensor : detail::copied(torch::stable::contiguous(tensor), tensor);
}

inline OptionalTensor dense(const OptionalTensor& tensor) {
  return tensor.has_value() ? OptionalTensor(dense(*tensor)) : std::nullopt;
}

// Plain pointers, the only way from a tensor to its memory: a kernel run by the emulator may touch what was handed out
// here and nothing else, and may write only through the mutable ones. T may be float, double, int32_t, int64_t, bool,
// igf::bfloat16, igf::half ...: the caller has checked the dtype (see dtype.h).
template <typename T>
const T* data(const Tensor& tensor) {
  detail::handed_out(tensor, true);
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
const T* data(const OptionalTensor& tensor) {
  return tensor.has_value() ? data<T>(*tensor) : nullptr;
}

template <typename T>
T* mutable_data(const Tensor& tensor) {
  detail::handed_out(tensor, false);
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
T* mutable_data(const OptionalTensor& tensor) {
  return tensor.has_value() ? mutable_data<T>(*tensor) : nullptr;
}

// Untyped, for the argument structs of kernels; null for none.
inline const void* const_pointer(const OptionalTensor& tensor) {
  return tensor.has_value() ? data<void>(*tensor) : nullptr;
}

inline void* mutable_pointer(const OptionalTensor& tensor) {
  return tensor.has_value() ? mutable_data<void>(*tensor) : nullptr;
}

// An uninitialised tensor on the device of `like` (under the emulator every byte is 0xFF, so every float NaN).
inline Tensor new_empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType dtype) {
  return detail::allocated(torch::stable::new_empty(like, sizes, dtype), true);
}

// The same with the sizes and dtype of `like`, dense.
inline Tensor new_empty_like(const Tensor& like) {
  return new_empty(like, std::vector<int64_t>(like.sizes().begin(), like.sizes().end()), like.scalar_type());
}

inline Tensor new_zeros(const Tensor& like, std::vector<int64_t> sizes, ScalarType dtype) {
  return detail::allocated(torch::stable::new_zeros(like, sizes, dtype), false);
}

}  // namespace igf
