// Micro-kernels: checks, allocation and registration.
#include "microkernels/microkernels.h"

#include "binding/cuda/context.h"

namespace igf {
namespace {

constexpr const char* kOp = "microkernel";

Tensor run_microkernel(int64_t which, Tensor input) {
  const microkernels::MicroKernel* kernel = microkernels::find(which);
  IGF_CHECK(kernel != nullptr, kOp, ": there is none of number ", which);
  check_dtype(kOp, "input", input, ScalarType::Int);
  check_vector(kOp, "input", input, kernel->input_words);
  const DeviceGuard guard(input.get_device_index());
  input = dense(input);
  const Tensor output = new_zeros(input, {kernel->output_words}, ScalarType::Int);
  const DeviceContext context = device_context(input);
  microkernels::start(*kernel, {data<uint32_t>(input), mutable_data<uint32_t>(output), context.arrivals, {}}, context);
  return output;
}

}  // namespace
}  // namespace igf

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m) {
  m.impl("microkernel", TORCH_BOX(&igf::run_microkernel));
}
