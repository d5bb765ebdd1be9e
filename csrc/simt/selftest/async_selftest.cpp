// Registers the kernels of async_cuda.cu as an operator that only the emulator's library has.
#include "simt/selftest/async_selftest.h"

#include "binding/cuda/context.h"

namespace igf::selftest {
namespace {

device::TensorMap map_of(const void* base, device::Swizzle swizzle) {
  return device::tensor_map("simt_async", {Element::kFloat, base, 2, {32, 64}, {0, 128}, {32, 8}, swizzle});
}

std::tuple<Tensor, Tensor> run_async(int64_t which, Tensor input) {
  const AsyncKernels kernels = async_kernels();
  IGF_CHECK(which >= 0 && which < static_cast<int64_t>(kernels.count), "simt_async: there is no kernel ", which);
  const Tensor output = new_empty_like(input);
  const Tensor sums = new_zeros(input, {64, 32}, ScalarType::Float);
  AsyncArguments arguments{data<float>(input), mutable_data<float>(output), mutable_data<float>(sums), {}, {}, {}, {}};
  arguments.in = map_of(arguments.input, device::Swizzle::k128);
  arguments.plain = map_of(arguments.input, device::Swizzle::kNone);
  arguments.out = map_of(arguments.output, device::Swizzle::k128);
  arguments.added = map_of(arguments.sums, device::Swizzle::k128);
  start_async(kernels.first[which], arguments, device_context(input));
  return {output, sums};
}

}  // namespace
}  // namespace igf::selftest

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) { m.def("simt_async(int which, Tensor input) -> (Tensor, Tensor)"); }

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, PrivateUse1, m) { m.impl("simt_async", TORCH_BOX(&igf::selftest::run_async)); }
