// Kernels of one instruction each, whose outputs on a GPU are committed (benchmarks/microkernels/golden.json).
//
// Why: the emulator and the kernels were written from the same documents by the same people; a misreading that both
// share would pass every other test. Inputs are integers, or floats whose results are exact, wherever the instruction
// allows it, so that equal means equal bits.
//
// Each reads and writes arrays of 32-bit words; benchmarks/microkernels/cases.py says what the words mean, and
// python_tests/simt/test_microkernels.py what must come out. Not part of the public API.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "device/context.h"
#include "device/tensor_map.cuh"

namespace igf::microkernels {

struct Arguments {
  const uint32_t* input;
  uint32_t* output;   // zero before the launch
  uint32_t* arrived;  // DeviceContext::arrivals
  device::TensorMap map;  // of the input or the output, for kernels that have one
};

// What a micro-kernel's tensor map is of.
enum class Mapped { kNothing, kInput, kOutput };

struct MicroKernel {
  const char* name;
  int input_words;
  int output_words;
  int blocks;
  int threads;
  void (*kernel)(Arguments);
  const device::TensorMapShape* tensor = nullptr;  // but for its base
  Mapped mapped = Mapped::kNothing;
  int shared_bytes = 0;  // of the dynamic block
};

// A run of micro-kernels; one a source file.
struct Table {
  const MicroKernel* first;
  size_t count;
};

Table lane_microkernels();
Table matrix_microkernels();
Table copy_microkernels();
Table order_microkernels();
Table number_microkernels();
Table async_microkernels();
Table wgmma_microkernels();

// Names cross the border to Python as numbers: FNV-1a over the name's bytes, 31 bits of it.
constexpr int64_t number_of(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 16777619u;
  return hash >> 1;
}

// The micro-kernel with this number, null for none.
const MicroKernel* find(int64_t number);

void start(const MicroKernel& which, Arguments arguments, const DeviceContext& context);

}  // namespace igf::microkernels
