// IGF_CHECK: the last line of defence inside an op. What a user can get wrong is reported by the Python face before,
// except what only the values of a tensor tell (a token outside the vocabulary).
#pragma once

#include <sstream>
#include <stdexcept>

namespace igf::detail {

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

}  // namespace igf::detail

// IGF_CHECK(condition, text...): raises RuntimeError with the parts streamed together when the condition is false. The
// text is the whole message: it begins with the op's name.
#define IGF_CHECK(condition, ...)                             \
  do {                                                        \
    if (!(condition)) ::igf::detail::fail(__VA_ARGS__);       \
  } while (false)
