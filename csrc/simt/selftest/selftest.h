// Small kernels that test the emulator: each with a rule that its broken version breaks and its sound version keeps.
//
// They are compiled into libigf_simt.so beside the ops' kernels and like them; python_tests/simt runs them by name.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/context.h"

namespace igf::simt {

constexpr int kBenchValues = 1026;  // two past a whole number of vectors
constexpr int kBenchCounters = 16;

// The memory of one run, known to the emulator by these names.
struct Bench {
  const float* in;     // [kBenchValues], in[i] = i % 64, read-only
  float* out;          // [kBenchValues], 0xFF
  uint32_t* counters;  // [kBenchCounters], zero
  DeviceContext context;

  // Throws std::runtime_error "wrong result" unless out[index] == value.
  void expect(int index, float value) const;
  void expect_count(int index, uint32_t value) const;
};

using SelftestRun = void (*)(const Bench& bench);

// Makes a case known, from a static variable. `broken` is null for kernels that only show that all is well.
struct Selftest {
  Selftest(const char* name, SelftestRun sound, SelftestRun broken);
};

}  // namespace igf::simt

// A case of a kernel template<bool kBroken> whose launch is `start<kBroken>(bench)`.
#define IGF_SELFTEST(name) const ::igf::simt::Selftest selftest_##name(#name, &name<false>, &name<true>)
// A case without a broken version.
#define IGF_SOUND(name) const ::igf::simt::Selftest selftest_##name(#name, &name, nullptr)
