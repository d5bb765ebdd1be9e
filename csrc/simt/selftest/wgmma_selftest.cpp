// Registers the kernels of the emulator's own tests of device/ptx_wgmma.cuh as operators that only the emulator's library
// has.
#include "simt/selftest/wgmma_selftest.h"

#include "binding/cuda/context.h"

namespace igf::selftest {
namespace {

constexpr const char* kOnce = "simt_wgmma_once";

// layout_a, layout_b: swizzle (0 to 3), leading, stride, bytes to move the descriptor on.
Tensor run_wgmma_once(Tensor a, Tensor b, Tensor sums, Tensor layout, int64_t columns, bool half, bool a_in_registers,
                      bool transpose_a, bool transpose_b, bool add) {
  check_dtype(kOnce, "layout", layout, ScalarType::Int);
  check_vector(kOnce, "layout", layout, 8);
  const int32_t* const l = data<int32_t>(layout);
  const Tensor output = new_empty_like(sums);
  WgmmaOnce product{};
  product.a = data<uint32_t>(a);
  product.b = data<uint32_t>(b);
  product.sums = data<float>(sums);
  product.output = mutable_data<float>(output);
  product.a_words = static_cast<int>(a.numel());
  product.b_words = static_cast<int>(b.numel());
  product.columns = static_cast<int>(columns);
  product.half = half;
  product.a_in_registers = a_in_registers;
  product.transpose_a = transpose_a;
  product.transpose_b = transpose_b;
  product.add = add;
  product.swizzle_a = l[0], product.leading_a = l[1], product.stride_a = l[2], product.advance_a = l[3];
  product.swizzle_b = l[4], product.leading_b = l[5], product.stride_b = l[6], product.advance_b = l[7];
  start_wgmma_once(product, device_context(sums));
  return output;
}

Tensor run_wgmma_fault(int64_t table, int64_t which, Tensor input) {
  const WgmmaKernels kernels =
      table == 0 ? wgmma_fault_kernels() : table == 1 ? wgmma_tile_kernels() : wgmma_race_kernels();
  IGF_CHECK(which >= 0 && which < static_cast<int64_t>(kernels.count), "simt_wgmma_fault: there is no kernel ", which);
  check_dtype("simt_wgmma_fault", "input", input, ScalarType::Int);
  check_vector("simt_wgmma_fault", "input", input, 1024);
  const Tensor output = new_empty(input, {128, 32}, ScalarType::Float);
  start_wgmma_fault(kernels.first[which], {data<uint32_t>(input), mutable_data<float>(output)}, device_context(input));
  return output;
}

Tensor run_wgmma_gemm(Tensor a, Tensor b) {
  const Tensor c = new_empty(a, {a.size(0), b.size(1)}, ScalarType::Float);
  WgmmaGemm gemm{};
  gemm.c = mutable_data<float>(c);
  gemm.m = a.size(0), gemm.n = b.size(1), gemm.k = a.size(1);
  start_wgmma_gemm(gemm, const_pointer(a), const_pointer(b), device_context(a));
  return c;
}

}  // namespace
}  // namespace igf::selftest

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) {
  m.def(
      "simt_wgmma_once(Tensor a, Tensor b, Tensor sums, Tensor layout, int columns, bool half, bool a_in_registers, "
      "bool transpose_a, bool transpose_b, bool add) -> Tensor");
  m.def("simt_wgmma_fault(int table, int which, Tensor input) -> Tensor");
  m.def("simt_wgmma_gemm(Tensor a, Tensor b) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, PrivateUse1, m) {
  m.impl("simt_wgmma_once", TORCH_BOX(&igf::selftest::run_wgmma_once));
  m.impl("simt_wgmma_fault", TORCH_BOX(&igf::selftest::run_wgmma_fault));
  m.impl("simt_wgmma_gemm", TORCH_BOX(&igf::selftest::run_wgmma_gemm));
}
