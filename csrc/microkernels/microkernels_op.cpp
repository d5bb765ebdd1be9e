// Micro-kernels: the schema, in a namespace of its own, since they are no part of the package's operators.
#include "binding/torch.h"

STABLE_TORCH_LIBRARY(instructgpt_fast_microkernels, m) { m.def("run(int which, Tensor input) -> Tensor"); }
