// The words of device/ptx.cuh that move matrices and copy asynchronously, as the emulator's half of that header calls
// them. On a fiber.
#pragma once

#include <cstdint>

#include "simt/mma.h"
#include "simt/site.h"

namespace igf::simt {

// What the lanes of a warp put together for one matrix word. Two, because a lane may be one word ahead of the others.
struct MatrixWord {
  uint64_t done = 0;  // the visit whose results stand here
  MmaOperands operands;
  uintptr_t rows[kLanes];
  uint32_t registers[4][kLanes];
};

struct MatrixWords {
  uint64_t visits[kLanes] = {};
  MatrixWord words[2];
};

// cp.async of `bytes` with `source_bytes` from the source, and 0 for the rest.
void copy_async(void* shared, const void* global, uint32_t bytes, int source_bytes, Site site);
void copy_commit(Site site);
// Waits for all but the `pending` latest groups, or for all copies.
void copy_wait(int pending, Site site);
void copy_wait_all(Site site);

// ldmatrix, stmatrix: `registers` are the lane's own, one a matrix; `row` is what the lane points to.
void load_matrix(uint32_t* registers, int matrices, bool transposed, const void* row, Site site);
void store_matrix(void* row, const uint32_t* registers, int matrices, bool transposed, Site site);

// mma.m16n8k16: sums[4] += a[4] b[2], all the lane's own.
void multiply_matrix(MmaInput input, float* sums, const uint32_t* a, const uint32_t* b, Site site);

void prefetch(Site site);

}  // namespace igf::simt
