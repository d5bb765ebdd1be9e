// The words of device/ptx_barriers.cuh and device/ptx_bulk.cuh, as the emulator's half of those headers calls them. On a
// fiber.
#pragma once

#include <cstdint>

#include "device/tensor_map.cuh"
#include "simt/events.h"

namespace igf::simt {

// mbarriers.h
void mbarrier_init(uint64_t* barrier, int arrivals, Site site);
void mbarrier_init_fence(Site site);
void mbarrier_arrive(uint64_t* barrier, Site site);
void mbarrier_arrive_expecting(uint64_t* barrier, int bytes, Site site);
void mbarrier_wait(uint64_t* barrier, int parity, Site site);

// proxies.h
void proxy_fence_shared(Site site);
void proxy_fence_global(Site site);

// registers.cpp: kReleaseRegisters or kClaimRegisters.
void set_registers(int registers, Word word, Site site);

// bulk.h: kStoreTile or kAddTile; kBulkWait or kBulkWaitRead.
void prefetch_tensor_map(const device::TensorMap& map, Site site);
void load_tile(void* shared, const device::TensorMap& map, const int* at, int dimensions, uint64_t* barrier, Site site);
void store_tile(const device::TensorMap& map, const int* at, int dimensions, const void* shared, Word word, Site site);
void bulk_load(void* shared, const void* global, int bytes, uint64_t* barrier, Site site);
void bulk_add(float* global, const void* shared, int bytes, Site site);
void bulk_commit(Site site);
void bulk_wait(int pending, Word word, Site site);

}  // namespace igf::simt
