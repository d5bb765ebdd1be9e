#include "simt/bounds.h"

#include <cstddef>
#include <cstring>

// Where the empty instructions before each kernel begin, in the order of the link; null without any kernel. The linker
// names the two ends of a section, and the section is the one that patchable_function_entry fills.
extern "C" {
extern const char* const igf_simt_entries[] __asm__("__start___patchable_function_entries")
    __attribute__((weak, visibility("hidden")));
extern const char* const igf_simt_entries_end[] __asm__("__stop___patchable_function_entries")
    __attribute__((weak, visibility("hidden")));
}

namespace igf::simt {
namespace {

#if defined(__x86_64__)
constexpr size_t kEmptyInstruction = 1;
#else
constexpr size_t kEmptyInstruction = 4;
#endif

// Whether nothing but one instruction again and again lies between the two: no other function does.
bool all_empty(const char* begin, const char* end) {
  for (const char* at = begin; at < end; at += kEmptyInstruction) {
    if (std::memcmp(at, begin, kEmptyInstruction) != 0) return false;
  }
  return true;
}

}  // namespace

int thread_bound(const void* kernel) {
  const char* const code = static_cast<const char*>(kernel);
  const char* nearest = nullptr;
  for (const char* const* entry = igf_simt_entries; entry != igf_simt_entries_end; ++entry) {
    if (*entry < code && (nearest == nullptr || *entry > nearest)) nearest = *entry;
  }
  if (nearest == nullptr || !all_empty(nearest, code)) return 0;
  return static_cast<int>(static_cast<size_t>(code - nearest) / kEmptyInstruction);
}

}  // namespace igf::simt
