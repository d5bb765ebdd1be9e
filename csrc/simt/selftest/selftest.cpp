#include "simt/selftest/selftest.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "simt/buffers.h"
#include "simt/control.h"
#include "simt/options.h"

namespace igf::simt {
namespace {

struct Runs {
  SelftestRun sound;
  SelftestRun broken;
};

std::map<std::string, Runs>& cases() {
  static std::map<std::string, Runs> known;
  return known;
}

// A place for a buffer among others: 16-byte aligned, with unowned bytes on both sides.
template <typename T>
T* place(std::vector<unsigned char>& memory, size_t count, size_t& used, const char* name, bool read_only) {
  constexpr size_t kGap = 256;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory.data()) + used + kGap + 15) / 16 * 16;
  used = begin + count * sizeof(T) - reinterpret_cast<uintptr_t>(memory.data());
  buffers().name(begin, count * sizeof(T), name);
  buffers().add(begin, count * sizeof(T), sizeof(T), read_only);
  return reinterpret_cast<T*>(begin);
}

void require(bool good, const std::string& what) {
  if (!good) throw std::runtime_error("wrong result: " + what);
}

}  // namespace

void Bench::expect(int index, float value) const {
  require(out[index] == value, "out[" + std::to_string(index) + "] is " + std::to_string(out[index]) + ", not " +
                                   std::to_string(value));
}

void Bench::expect_count(int index, uint32_t value) const {
  require(counters[index] == value, "counters[" + std::to_string(index) + "] is " + std::to_string(counters[index]) +
                                        ", not " + std::to_string(value));
}

Selftest::Selftest(const char* name, SelftestRun sound, SelftestRun broken) { cases()[name] = {sound, broken}; }

}  // namespace igf::simt

using namespace igf::simt;

// Names, one a line; those that have a broken version are followed by " broken".
IGF_SIMT_EXPORT const char* igf_simt_selftests() {
  static std::string text;
  text.clear();
  for (const auto& [name, runs] : cases()) text += name + (runs.broken == nullptr ? "\n" : " broken\n");
  return text.c_str();
}

// Runs one; returns what its launch, or its check of the result, complained of: "" for nothing.
IGF_SIMT_EXPORT const char* igf_simt_selftest(const char* name, int broken) {
  static std::string text;
  static std::vector<unsigned char> memory(1 << 16);
  const auto found = cases().find(name);
  if (found == cases().end()) return "no such case";
  std::fill(memory.begin(), memory.end(), 0xFF);
  buffers().clear();
  size_t used = 0;
  float* const in = place<float>(memory, kBenchValues, used, "in", true);
  for (int i = 0; i < kBenchValues; ++i) in[i] = static_cast<float>(i % 64);
  Bench bench{in, nullptr, nullptr, {nullptr, options().multiprocessors, nullptr}};
  bench.out = place<float>(memory, kBenchValues, used, "out", false);
  bench.counters = place<uint32_t>(memory, kBenchCounters, used, "counters", false);
  std::memset(bench.counters, 0, kBenchCounters * sizeof(uint32_t));
  text.clear();
  try {
    (broken != 0 ? found->second.broken : found->second.sound)(bench);
  } catch (const std::exception& error) {
    text = error.what();
  }
  buffers().clear();
  return text.c_str();
}
