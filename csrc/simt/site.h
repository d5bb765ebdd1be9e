// A place in the source, as __builtin_FILE and __builtin_LINE give it.
#pragma once

namespace igf::simt {

struct Site {
  const char* file = nullptr;
  int line = 0;
};

}  // namespace igf::simt
