// Registers the kernels of the emulator's own tests of device/ptx.cuh as operators that only the emulator's library has.
#include "simt/selftest/ptx_selftest.h"

#include "binding/cuda/context.h"

namespace igf::selftest {
namespace {

Tensor run_ptx_fault(int64_t which, Tensor input) {
  const PtxKernels kernels = ptx_fault_kernels();
  IGF_CHECK(which >= 0 && which < static_cast<int64_t>(kernels.count), "simt_ptx_fault: there is no kernel ", which);
  check_vector("simt_ptx_fault", "input", input, 64);
  check_dtype("simt_ptx_fault", "input", input, ScalarType::Int);
  const Tensor output = new_empty_like(input);
  start_ptx_fault(kernels.first[which], {data<uint32_t>(input), mutable_data<uint32_t>(output)}, device_context(input));
  return output;
}

Tensor run_ptx_gemm(Tensor a, Tensor b, int64_t form) {
  const Tensor c = new_empty(a, {a.size(0), b.size(1)}, ScalarType::Float);
  const PtxGemm gemm{const_pointer(a), const_pointer(b), mutable_data<float>(c), a.size(0), b.size(1), a.size(1)};
  start_ptx_gemm(gemm, static_cast<GemmForm>(form), device_context(a));
  return c;
}

}  // namespace
}  // namespace igf::selftest

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def("simt_ptx_fault(int which, Tensor input) -> Tensor");
  m.def("simt_ptx_gemm(Tensor a, Tensor b, int form) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, PrivateUse1, m) {
  m.impl("simt_ptx_fault", TORCH_BOX(&igf::selftest::run_ptx_fault));
  m.impl("simt_ptx_gemm", TORCH_BOX(&igf::selftest::run_ptx_gemm));
}
