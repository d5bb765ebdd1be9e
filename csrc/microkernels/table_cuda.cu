// All micro-kernels, found by number and started.
#include "device/launch.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {

const MicroKernel* find(int64_t number) {
  for (const Table& table : {lane_microkernels(), matrix_microkernels(), copy_microkernels(), order_microkernels(),
                             number_microkernels(), async_microkernels(), wgmma_microkernels()}) {
    for (size_t i = 0; i < table.count; ++i) {
      if (number_of(table.first[i].name) == number) return table.first + i;
    }
  }
  return nullptr;
}

void start(const MicroKernel& which, Arguments arguments, const DeviceContext& context) {
  if (which.mapped != Mapped::kNothing) {
    device::TensorMapShape tensor = *which.tensor;
    tensor.base = which.mapped == Mapped::kInput ? arguments.input : arguments.output;
    arguments.map = device::tensor_map(which.name, tensor);
  }
  device::launch(which.name, which.kernel, {which.blocks, 1, which.threads, 1, which.shared_bytes}, context, arguments);
}

}  // namespace igf::microkernels
