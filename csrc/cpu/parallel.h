// parallel_for over torch's thread pool, for CPU loops that include no torch header.
#pragma once

#include <cstdint>

namespace igf {

using RangeFunction = void (*)(int64_t begin, int64_t end, void* context);

// Defined in csrc/binding/parallel.cpp on torch::stable::parallel_for.
void parallel_ranges(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

// Calls body(first, last) on disjoint ranges that cover [begin, end). A range has at least `grain` items unless it
// is the last; torch.set_num_threads() sets how many run at once. Where a range is cut depends on the number of
// threads: a result that must have the same bits on any machine may not depend on it. body must not throw.
template <typename Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  if (begin >= end) return;
  const auto call = [](int64_t first, int64_t last, void* context) {
    (*static_cast<const Body*>(context))(first, last);
  };
  parallel_ranges(begin, end, grain < 1 ? 1 : grain, call, const_cast<Body*>(&body));
}

}  // namespace igf
