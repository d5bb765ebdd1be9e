// A place in the source.
#pragma once

namespace igf::simt {

struct Site {
  const char* file = nullptr;
  int line = 0;

  // As a default argument: the place of the call whose argument it is.
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

}  // namespace igf::simt
