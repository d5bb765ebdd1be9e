// The one definition behind csrc/cpu/parallel.h.
#include "cpu/parallel.h"

#include "binding/torch.h"

namespace igf {

void parallel_ranges(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, function, context));
}

}  // namespace igf
