// Kernels that hand wrong tiles to matrix products by warpgroups, one mistake each, for the emulator's own tests.
#include "simt/selftest/wgmma_selftest.cuh"

namespace igf::selftest {
namespace {

IGF_KERNEL(kGroup) stride_no_multiple(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles, kLeading, kStride + 8, Swizzle::kNone), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) stride_beyond_the_array(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles, 8192, 1024, Swizzle::kNone), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) stride_too_small(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(tiles), ptx::wgmma_tile(tiles + kTile, kLeading, 64, Swizzle::kNone));
}

IGF_KERNEL(kGroup) leading_left_out(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles, 0, kStride, Swizzle::kNone), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) leading_and_stride_exchanged(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles, kStride, kLeading, Swizzle::kNone), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) distance_no_pattern(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles, 0, 128, Swizzle::k32), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) pattern_misplaced(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_tile(tiles + 32, 0, 512, Swizzle::k64), tile_at(tiles + kTile));
}

// Moved on by 48 bytes, the 32 bytes of k end beyond the swizzle's row of 64.
IGF_KERNEL(kGroup) beyond_the_row(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_advance(ptx::wgmma_tile(tiles, 0, 512, Swizzle::k64), 48), tile_at(tiles + kTile));
}

// As if M were dense: then the patterns of 64 elements of M, 16 bytes wide, overlap those of k.
IGF_KERNEL(kGroup) wrong_transposition(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply<true>(p, ptx::wgmma_tile(tiles, 512, kStride, Swizzle::kNone), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) tile_misaligned(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(tiles + 2), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) moved_on_by_bytes(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, ptx::wgmma_advance(tile_at(tiles), 8), tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) tile_in_global(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(p.input), tile_at(tiles + kTile));
}

// The descriptor counts on as a number and leaves the 18 bits of its address.
IGF_KERNEL(kGroup) bits_that_mean_nothing(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(tiles) | uint64_t{1} << 15, tile_at(tiles + kTile));
}

IGF_KERNEL(kGroup) outside_of_all_arrays(WgmmaFault p) {
  const uint32_t* const tiles = ready_tiles(p);
  multiply(p, tile_at(tiles), ptx::wgmma_advance(tile_at(tiles), 4 * 4 * kTile));
}

const WgmmaKernel kTable[] = {
    {"stride_no_multiple", kGroup, &stride_no_multiple},
    {"stride_beyond_the_array", kGroup, &stride_beyond_the_array},
    {"stride_too_small", kGroup, &stride_too_small},
    {"leading_left_out", kGroup, &leading_left_out},
    {"leading_and_stride_exchanged", kGroup, &leading_and_stride_exchanged},
    {"distance_no_pattern", kGroup, &distance_no_pattern},
    {"pattern_misplaced", kGroup, &pattern_misplaced},
    {"beyond_the_row", kGroup, &beyond_the_row},
    {"wrong_transposition", kGroup, &wrong_transposition},
    {"tile_misaligned", kGroup, &tile_misaligned},
    {"moved_on_by_bytes", kGroup, &moved_on_by_bytes},
    {"tile_in_global", kGroup, &tile_in_global},
    {"bits_that_mean_nothing", kGroup, &bits_that_mean_nothing},
    {"outside_of_all_arrays", kGroup, &outside_of_all_arrays},
};

}  // namespace

WgmmaKernels wgmma_tile_kernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::selftest
