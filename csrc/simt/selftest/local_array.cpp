#include "simt/selftest/local_array.h"

#include "binding/cuda/context.h"

namespace igf::selftest {
namespace {

Tensor run_local_array(Tensor like, int64_t index) {
  const Tensor output = new_empty(like, {kLocalElements}, ScalarType::Float);
  start_local_array(mutable_data<float>(output), index, device_context(like));
  return output;
}

}  // namespace
}  // namespace igf::selftest

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) { m.def("simt_local_array(Tensor like, int index) -> Tensor"); }

STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, PrivateUse1, m) {
  m.impl("simt_local_array", TORCH_BOX(&igf::selftest::run_local_array));
}
