// IGF_CHECK: the last line of defence inside an op. What a user can get wrong is reported by the Python face before.
#pragma once

#include <torch/headeronly/util/Exception.h>

// IGF_CHECK(condition, text...): raises RuntimeError with the parts streamed together when the condition is false.
#define IGF_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)
