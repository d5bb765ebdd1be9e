// The words of device/ptx_wgmma.cuh, as the emulator's half of that header calls them. On a fiber.
//
// All 128 threads of a warpgroup meet at each of them but wgmma_tile, wgmma_advance and hold; the last to come does the
// work. A product is computed when it is issued, out of what stands in shared memory then; until it was waited for its sums
// are NaN in the threads' own arrays, and nobody may touch them, nor its A in registers, nor write to its operands in
// shared memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simt/site.h"
#include "simt/wgmma.h"

namespace igf::simt {

uint64_t wgmma_tile(const void* shared, int leading, int stride, WgmmaSwizzle swizzle, Site site);
uint64_t wgmma_advance(uint64_t tile, int bytes, Site site);

void wgmma_fence(Site site);
void wgmma_commit(Site site);
void wgmma_wait(int pending, Site site);

// What one thread says: where its sums stand (columns / 2 of them), and A in registers (4 of them) where the form has it.
struct WgmmaOffer {
  float* sums;
  const uint32_t* a_registers;
  uint64_t a_tile;
  uint64_t b_tile;
  bool add;
};
void wgmma(const WgmmaForm& form, const WgmmaOffer& offer, Site site);

}  // namespace igf::simt
