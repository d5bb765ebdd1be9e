// Tensor maps for a GPU: encoded by the driver, which is asked for through the static CUDA runtime. So the library needs
// no libcuda, and loads where there is none.
#include "device/tensor_map.cuh"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>

#include "device/tensor_map_rules.h"

namespace igf::device {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));

constexpr unsigned int kSince = 12000;  // the CUDA version that has the call

// Null where the driver has none. Asked again after a failure, which another driver's arrival may end.
Encode encode_call(const char* name) {
  static std::mutex mutex;
  static Encode known = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (known != nullptr) return known;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, kSince, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess || found == nullptr) {
    throw std::runtime_error(std::string(name) + ": the driver has no cuTensorMapEncodeTiled" +
                             (error == cudaSuccess ? "" : std::string(": ") + cudaGetErrorString(error)) +
                             "; tensor copies need a driver of CUDA 12.0 or later");
  }
  known = reinterpret_cast<Encode>(found);
  return known;
}

CUtensorMapDataType type_of(Element element) {
  switch (element) {
    case Element::kFloat: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case Element::kBfloat16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    default: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  }
}

CUtensorMapSwizzle swizzle_of(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::k32: return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::k64: return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::k128: return CU_TENSOR_MAP_SWIZZLE_128B;
    default: return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

}  // namespace

TensorMap tensor_map(const char* name, const TensorMapShape& shape) {
  check_tensor_map(name, shape);
  cuuint64_t sizes[5] = {};
  cuuint64_t strides[5] = {};  // from dimension 1 on
  cuuint32_t box[5] = {};
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  for (int d = 0; d < shape.dimensions; ++d) {
    sizes[d] = static_cast<cuuint64_t>(shape.sizes[d]);
    box[d] = static_cast<cuuint32_t>(shape.box[d]);
    if (d > 0) strides[d - 1] = static_cast<cuuint64_t>(shape.strides[d]);
  }
  CUtensorMap encoded;
  const CUresult result = encode_call(name)(
      &encoded, type_of(shape.element), static_cast<cuuint32_t>(shape.dimensions), const_cast<void*>(shape.base), sizes,
      strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of(shape.swizzle),
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(std::string(name) + ": cuTensorMapEncodeTiled refused the tensor map, error " +
                             std::to_string(static_cast<int>(result)));
  }
  TensorMap map;
  std::memcpy(&map, &encoded, sizeof map);
  return map;
}

}  // namespace igf::device
