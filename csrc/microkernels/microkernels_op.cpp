// Micro-kernels: the schema. For checks of a device; there is no CPU execution and no Python face.
#include "binding/torch.h"

STABLE_TORCH_LIBRARY_FRAGMENT(instructgpt_fast, m) { m.def("microkernel(int which, Tensor input) -> Tensor"); }
