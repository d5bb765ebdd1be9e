// How many threads a block of a kernel may have: what IGF_KERNEL says.
#pragma once

namespace igf::simt {

// 0 for a function that was not declared by IGF_KERNEL.
int thread_bound(const void* kernel);

}  // namespace igf::simt
