// One product of every form, out of images of shared memory.
#include "device/launch.cuh"
#include "device/memory.cuh"
#include "device/ptx_wgmma.cuh"
#include "simt/selftest/wgmma_selftest.h"

namespace igf::selftest {
namespace {

using namespace device;

constexpr int kThreads = 128;
constexpr int kWordsOfPiece = 4;
constexpr int kPattern = 256;  // words: where a swizzle's pattern begins anew

IGF_DEVICE void copy_image(uint32_t* tile, const uint32_t* image, int words) {
  for (int i = thread_x(); i < words; i += kThreads) tile[i] = load(image + i);  // [0, words)
}

template <typename T, int kN>
IGF_DEVICE void multiply(const WgmmaOnce& p, float (&sums)[kN / 2], const uint32_t* a, const uint32_t* b) {
  const uint64_t tile_b = ptx::wgmma_advance(
      ptx::wgmma_tile(b, p.leading_b, p.stride_b, static_cast<Swizzle>(p.swizzle_b)), p.advance_b);
  if (p.a_in_registers) {
    uint32_t registers[kWordsOfPiece];
    for (int i = 0; i < kWordsOfPiece; ++i) registers[i] = load(p.a + kWordsOfPiece * thread_x() + i);
    ptx::wgmma_fence();
    if (p.transpose_b) {
      ptx::wgmma<T, kN, true>(sums, registers, tile_b, p.add);
    } else {
      ptx::wgmma<T, kN, false>(sums, registers, tile_b, p.add);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    return;
  }
  const uint64_t tile_a = ptx::wgmma_advance(
      ptx::wgmma_tile(a, p.leading_a, p.stride_a, static_cast<Swizzle>(p.swizzle_a)), p.advance_a);
  ptx::wgmma_fence();
  if (p.transpose_a && p.transpose_b) {
    ptx::wgmma<T, kN, true, true>(sums, tile_a, tile_b, p.add);
  } else if (p.transpose_a) {
    ptx::wgmma<T, kN, true, false>(sums, tile_a, tile_b, p.add);
  } else if (p.transpose_b) {
    ptx::wgmma<T, kN, false, true>(sums, tile_a, tile_b, p.add);
  } else {
    ptx::wgmma<T, kN, false, false>(sums, tile_a, tile_b, p.add);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
}

template <typename T, int kN>
IGF_KERNEL(kThreads) wgmma_once(WgmmaOnce p) {
  IGF_DYNAMIC_SHARED(tiles);
  uint32_t* const a = reinterpret_cast<uint32_t*>(tiles);
  uint32_t* const b = a + static_cast<int>(ceil_div(p.a_in_registers ? 0 : p.a_words, kPattern)) * kPattern;
  if (!p.a_in_registers) copy_image(a, p.a, p.a_words);
  copy_image(b, p.b, p.b_words);
  ptx::proxy_fence_shared();
  block_barrier();  // the images are in shared memory
  float sums[kN / 2];
  for (int i = 0; i < kN / 2; ++i) sums[i] = load(p.sums + kN / 2 * thread_x() + i);
  multiply<T, kN>(p, sums, a, b);
  for (int i = 0; i < kN / 2; ++i) store(p.output + kN / 2 * thread_x() + i, sums[i]);
}

template <typename T, int kN>
void start(const WgmmaOnce& p, const DeviceContext& context) {
  const int64_t words = ceil_div(p.a_words, kPattern) * kPattern + p.b_words;
  launch("wgmma_once", &wgmma_once<T, kN>, {1, 1, kThreads, 1, words * 4}, context, p);
}

template <typename T>
void start(const WgmmaOnce& p, const DeviceContext& context) {
  switch (p.columns) {
    case 64: return start<T, 64>(p, context);
    case 80: return start<T, 80>(p, context);
    case 96: return start<T, 96>(p, context);
    default: return start<T, 128>(p, context);
  }
}

}  // namespace

void start_wgmma_once(const WgmmaOnce& product, const DeviceContext& context) {
  if (product.half) {
    start<device::half>(product, context);
  } else {
    start<bfloat16>(product, context);
  }
}

}  // namespace igf::selftest
