// PTX words of sm_90 that copy boxes of tensors, or runs of bytes, between global and shared memory: one thread says
// the word, the copy engine does the work, through the async proxy (ptx_barriers.cuh).
//
// Source: PTX ISA 9.0, "Data Movement and Conversion Instructions: Bulk copy" (cp.async.bulk, cp.reduce.async.bulk) and
// "Tensor copy" (cp.async.bulk.tensor, cp.reduce.async.bulk.tensor). Below sm_90 nothing here may be reached.
//
// Loads end at an mbarrier: bytes that arrive are taken off what was announced there. Until then the destination belongs
// to the copy. Stores and additions end in groups of the thread that said them: bulk_commit, then bulk_wait_read before
// their source in shared memory is written again, bulk_wait before their results are counted on.
// A tile's coordinates are those of its first element, dimension 0 first; they may lie outside of the tensor, also
// below 0. A tile in shared memory stands on 128 bytes, or what its swizzle asks for (tensor_map.cuh).
#pragma once

#include "device/ptx_barriers.cuh"
#include "device/tensor_map.cuh"
#include "device/words.cuh"

#if defined(IGF_SIMT)

#include "simt/device/ptx_bulk.h"

#else

namespace igf::device::ptx {

// prefetch.tensormap: asks for the descriptor itself.
IGF_DEVICE void prefetch_tensor_map(const TensorMap& map IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
}

// cp.async.bulk.tensor.{2,3,4}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes. The whole box counts as
// arriving, zeros outside of the tensor too.
template <int kDimensions>
IGF_DEVICE void load_tile(void* shared, const TensorMap& map, const int (&at)[kDimensions],
                          uint64_t* barrier IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const uint32_t to = shared_address(shared), bar = shared_address(barrier);
  if constexpr (kDimensions == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            to),
        "l"(&map), "r"(bar), "r"(at[0]), "r"(at[1])
        : "memory");
  } else if constexpr (kDimensions == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
        "[%2];" ::"r"(to),
        "l"(&map), "r"(bar), "r"(at[0]), "r"(at[1]), "r"(at[2])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
        "%6}], [%2];" ::"r"(to),
        "l"(&map), "r"(bar), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
        : "memory");
  }
#endif
}

// cp.async.bulk.tensor.{2,3,4}d.global.shared::cta.tile.bulk_group, and cp.reduce.async.bulk.tensor....add: the box in
// shared memory is stored to the tensor, or added to it element by element (f32: rounded once per addition).
template <int kDimensions>
IGF_DEVICE void store_tile(const TensorMap& map, const int (&at)[kDimensions], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const uint32_t from = shared_address(shared);
  if constexpr (kDimensions == 2) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
                 "r"(from), "r"(at[0]), "r"(at[1])
                 : "memory");
  } else if constexpr (kDimensions == 3) {
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
                 "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2])
                 : "memory");
  } else {
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map),
                 "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
                 : "memory");
  }
#endif
}
template <int kDimensions>
IGF_DEVICE void add_tile(const TensorMap& map, const int (&at)[kDimensions], const void* shared IGF_SITE_PARAMETER) {
  static_assert(kDimensions >= 2 && kDimensions <= 4);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  const uint32_t from = shared_address(shared);
  if constexpr (kDimensions == 2) {
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(
                     &map),
                 "r"(from), "r"(at[0]), "r"(at[1])
                 : "memory");
  } else if constexpr (kDimensions == 3) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
        "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2])
        : "memory");
  } else {
    asm volatile(
        "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
            &map),
        "r"(from), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
        : "memory");
  }
#endif
}

// cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes, cp.reduce.async.bulk.global.shared::cta.bulk_group
// .add.f32: `bytes` and both addresses are multiples of 16.
IGF_DEVICE void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
#endif
}
IGF_DEVICE void bulk_add(float* global, const void* shared, int bytes IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
               "r"(shared_address(shared)), "r"(bytes)
               : "memory");
#endif
}

// cp.async.bulk.commit_group; cp.async.bulk.wait_group{.read} kPending: of this thread's groups at most the kPending
// latest may still be writing; .read: may still be reading their sources.
IGF_DEVICE void bulk_commit(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
template <int kPending>
IGF_DEVICE void bulk_wait(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}
template <int kPending>
IGF_DEVICE void bulk_wait_read(IGF_ONLY_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
#endif
}

// red.relaxed.gpu.global.add.v4.f32 (generic proxy, sm_90): four additions in one word, each rounded once, in no order
// with those of other threads. place on 16 bytes.
IGF_DEVICE void add_four(float* place, float a, float b, float c, float d IGF_SITE_PARAMETER) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(place), "f"(a), "f"(b), "f"(c), "f"(d)
               : "memory");
#endif
}

}  // namespace igf::device::ptx

#endif  // IGF_SIMT
