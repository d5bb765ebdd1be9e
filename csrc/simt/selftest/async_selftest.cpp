// Registers the kernels of async_*_cuda.cu as operators that only the emulator's library has.
#include "simt/selftest/async_selftest.h"

#include <array>
#include <string>

#include "binding/cuda/context.h"
#include "simt/bounds.h"
#include "simt/launch.h"

namespace igf::selftest {
namespace {

constexpr int64_t kDynamicBytes = 4096;

device::TensorMap map_of(const void* base, device::Swizzle swizzle, int64_t rows = 64) {
  return device::tensor_map("simt_async", {Element::kFloat, base, 2, {32, rows}, {0, 128}, {32, 8}, swizzle});
}

void start(const AsyncKernel& which, AsyncArguments arguments) {
  struct Call {
    void (*kernel)(AsyncArguments);
    AsyncArguments arguments;
  } call{which.kernel, arguments};
  const simt::LaunchFacts facts{which.name, simt::thread_bound(reinterpret_cast<const void*>(which.kernel)), 1, 1,
                                which.threads, 1, kDynamicBytes, 0};
  const auto body = [](void* given) { static_cast<Call*>(given)->kernel(static_cast<Call*>(given)->arguments); };
  simt::launch(facts, body, &call, sizeof call);
}

std::tuple<Tensor, Tensor> run_async(int64_t table, int64_t which, Tensor input) {
  const std::array<AsyncKernels, 4> tables = {mbarrier_kernels(), copy_kernels(), proxy_kernels(), register_kernels()};
  IGF_CHECK(table >= 0 && table < static_cast<int64_t>(tables.size()), "simt_async: there is no table ", table);
  const AsyncKernels kernels = tables[static_cast<size_t>(table)];
  IGF_CHECK(which >= 0 && which < static_cast<int64_t>(kernels.count), "simt_async: there is no kernel ", which);
  const Tensor output = new_empty_like(input);
  const Tensor sums = new_zeros(input, {64, 32}, ScalarType::Float);
  AsyncArguments arguments{data<float>(input), mutable_data<float>(output), mutable_data<float>(sums), {}, {}, {}, {}, {}};
  arguments.in = map_of(arguments.input, device::Swizzle::k128);
  arguments.plain = map_of(arguments.input, device::Swizzle::kNone);
  arguments.beyond = map_of(arguments.input, device::Swizzle::k128, 128);
  arguments.out = map_of(arguments.output, device::Swizzle::k128);
  arguments.added = map_of(arguments.sums, device::Swizzle::k128);
  start(kernels.first[which], arguments);
  return {output, sums};
}

// The map of float32 elements `offset` bytes into x; raises what breaks a rule.
void make_tensor_map(Tensor x, int64_t offset, std::vector<int64_t> sizes, std::vector<int64_t> strides,
                     std::vector<int64_t> box, int64_t swizzle) {
  const char* const base = reinterpret_cast<const char*>(data<float>(x)) + offset;
  device::TensorMapShape shape{Element::kFloat, base, static_cast<int>(sizes.size()), {}, {}, {},
                               static_cast<device::Swizzle>(swizzle)};
  for (size_t d = 0; d < sizes.size() && d < 5; ++d) {
    shape.sizes[d] = sizes[d];
    shape.strides[d] = strides[d];
    shape.box[d] = static_cast<int>(box[d]);
  }
  device::tensor_map("simt_tensor_map", shape);
}

}  // namespace
}  // namespace igf::selftest

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("simt_async(int table, int which, Tensor input) -> (Tensor, Tensor)");
  m.def("simt_tensor_map(Tensor x, int offset, int[] sizes, int[] strides, int[] box, int swizzle) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, PrivateUse1, m) {
  m.impl("simt_async", TORCH_BOX(&igf::selftest::run_async));
  m.impl("simt_tensor_map", TORCH_BOX(&igf::selftest::make_tensor_map));
}
