// A driver of one call, in the place of the real one, under tensor_map(): what the call is handed, without a device.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "device/tensor_map.cuh"

namespace {

bool has_call = true;
int asked = 0;
CUresult answer = CUDA_SUCCESS;
std::string error;

struct Handed {
  long long type, dimensions, base, sizes[5], strides[5], box[5], steps[5], interleave, swizzle, fill;
} handed;

CUresult CUDAAPI encode(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t dimensions, void* base,
                        const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                        const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                        CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  if (answer != CUDA_SUCCESS) return answer;
  handed = {type, dimensions, reinterpret_cast<long long>(base), {}, {}, {}, {}, interleave, swizzle, fill};
  for (unsigned d = 0; d < dimensions; ++d) {
    handed.sizes[d] = static_cast<long long>(sizes[d]);
    handed.box[d] = box[d];
    handed.steps[d] = steps[d];
    if (d + 1 < dimensions) handed.strides[d] = static_cast<long long>(strides[d]);
  }
  std::memset(map, 0x5A, sizeof *map);
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** call, unsigned version, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  ++asked;
  const bool known = has_call && version >= 12000 && std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0;
  *call = known ? reinterpret_cast<void*>(&encode) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) { return "refused by the probe"; }

// What the test says: a driver with or without the call; one that answers with an error.
void set_driver(bool knows, int result) {
  has_call = knows;
  answer = static_cast<CUresult>(result);
}
// Makes a map and returns what the driver was handed, or null for an error.
const Handed* make_map(int element, size_t base, int dimensions, const long* sizes, const long* strides, const int* box,
                       int swizzle) {
  igf::device::TensorMapShape shape{static_cast<igf::Element>(element), reinterpret_cast<const void*>(base), dimensions,
                                    {}, {}, {}, static_cast<igf::device::Swizzle>(swizzle)};
  for (int d = 0; d < dimensions && d < 5; ++d) {
    shape.sizes[d] = sizes[d];
    shape.strides[d] = strides[d];
    shape.box[d] = box[d];
  }
  try {
    const igf::device::TensorMap map = igf::device::tensor_map("probe", shape);
    return map.words[0] == 0x5A5A5A5A5A5A5A5A && map.words[15] == map.words[0] ? &handed : nullptr;
  } catch (const std::runtime_error& raised) {
    error = raised.what();
    return nullptr;
  }
}
const char* last_error() { return error.c_str(); }
int times_asked() { return asked; }

}  // extern "C"
