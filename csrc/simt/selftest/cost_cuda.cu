// What the emulator's own work costs: kernels that do one thing many times.
#include <chrono>
#include <cstring>
#include <vector>

#include "device/launch.cuh"
#include "device/vectors.cuh"
#include "simt/buffers.h"
#include "simt/control.h"

namespace igf {
namespace {

using namespace device;

constexpr int kThreads = 256;
constexpr int kValues = 4096;
constexpr int kTurns = 64;
constexpr int kBlocks = 16;

enum class Work {
  kNothing,
  kLocal,
  kReadOnly,
  kShared,
  kWritable,
  kLoadVector,
  kStoreVector,
  kBarrier,
  kShuffle,
  kWarpBarrier
};

template <Work kWork>
IGF_KERNEL(kThreads) work(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, line, kThreads);
  volatile float local[4] = {};
  float total = 0.0f;
  float* const own = out + block_x() * kValues;
  for (int turn = 0; turn < kTurns; ++turn) {
    const int place = turn % 16 * kThreads + thread_index();  // [0, kValues)
    if constexpr (kWork == Work::kLocal) local[turn % 4] = 1.0f;
    if constexpr (kWork == Work::kReadOnly) total += in[place];
    if constexpr (kWork == Work::kShared) line[thread_index()] = 1.0f;
    if constexpr (kWork == Work::kWritable) own[place] = 1.0f;
    if constexpr (kWork == Work::kLoadVector) {
      total += load(reinterpret_cast<const Packed<float>*>(in) + place / 4).lanes[0];
    }
    if constexpr (kWork == Work::kStoreVector) {
      store(reinterpret_cast<Packed<float>*>(own) + thread_index(), Packed<float>{});
    }
    if constexpr (kWork == Work::kBarrier) block_barrier();
    if constexpr (kWork == Work::kShuffle) total = shuffle_xor(total, 1);
    if constexpr (kWork == Work::kWarpBarrier) warp_barrier();
  }
  if (total == 1.0f) own[thread_index()] = local[0];
}

using Start = void (*)(const float* in, float* out);

template <Work kWork>
void start(const float* in, float* out) {
  launch("work", &work<kWork>, {kBlocks, 1, kThreads, 1}, DeviceContext{nullptr, 1, nullptr}, in, out);
}

constexpr struct {
  const char* what;
  Start start;
} kWorks[] = {{"nothing", &start<Work::kNothing>},
              {"write to the own stack", &start<Work::kLocal>},
              {"plain read of a read-only buffer", &start<Work::kReadOnly>},
              {"plain write to shared memory", &start<Work::kShared>},
              {"plain write to a buffer", &start<Work::kWritable>},
              {"load of 16 bytes, read-only", &start<Work::kLoadVector>},
              {"store of 16 bytes", &start<Work::kStoreVector>},
              {"block_barrier", &start<Work::kBarrier>},
              {"shuffle", &start<Work::kShuffle>},
              {"warp_barrier", &start<Work::kWarpBarrier>}};

}  // namespace
}  // namespace igf

// Nanoseconds for each time a thread does it, the best of several runs, `nothing` (a turn of the loop) included.
IGF_SIMT_EXPORT double igf_simt_cost(const char* what) {
  using namespace igf;
  std::vector<float> in(kValues, 0.0f);
  std::vector<float> out(kBlocks * kValues, 0.0f);
  double best = -1.0;
  for (const auto& each : kWorks) {
    if (std::strcmp(each.what, what) != 0) continue;
    for (int run = 0; run < 5; ++run) {
      simt::buffers().clear();
      simt::buffers().add(reinterpret_cast<uintptr_t>(in.data()), in.size() * sizeof(float), sizeof(float), true);
      simt::buffers().add(reinterpret_cast<uintptr_t>(out.data()), out.size() * sizeof(float), sizeof(float), false);
      const auto begin = std::chrono::steady_clock::now();
      each.start(in.data(), out.data());
      const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
      const double each_time = taken.count() / (1.0 * kBlocks * kThreads * kTurns);
      if (best < 0.0 || each_time < best) best = each_time;
    }
  }
  simt::buffers().clear();
  return best;
}
