// Philox4x32-10: random numbers as a pure function of a key and a counter. Torch-free, for CPU loops and kernels.
//
// Why: a draw then depends on what it is for (seed, position, element) and on nothing else: not on the order of
// execution, the number of threads, the batch neighbours, or the device. Nothing is stored, so a backward pass draws
// the same mask again from the same numbers.
//
// Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC'11), section 4.3 and
// table 2. python_tests/device/test_philox.py checks the known answers published with it.
//
// The key is the seed's two halves. The last word of the counter names the use, so that two ops given one seed never
// share numbers; the other three count within the use, as the op's contract header says.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define IGF_PHILOX __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define IGF_PHILOX __forceinline
#else
#define IGF_PHILOX inline __attribute__((always_inline))
#endif

namespace igf::philox {

// The uses, kept in counter word 3.
inline constexpr std::uint32_t kSampling = 1;
inline constexpr std::uint32_t kDropout = 2;

struct Key {
  std::uint32_t low, high;
};

struct Block {
  std::uint32_t w0, w1, w2, w3;
};

IGF_PHILOX constexpr Key key_of(std::int64_t seed) {
  const std::uint64_t bits = static_cast<std::uint64_t>(seed);
  return {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)};
}

IGF_PHILOX constexpr std::uint32_t high_product(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(a) * b) >> 32);
}

// Four 32-bit words, each uniform and independent of every other word of every other counter and key.
IGF_PHILOX constexpr Block draw(Block counter, Key key) {
  constexpr int kRounds = 10;
  constexpr std::uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;  // added to the key after each round
  Block c = counter;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint32_t high0 = high_product(kMultiplier0, c.w0), low0 = kMultiplier0 * c.w0;
    const std::uint32_t high1 = high_product(kMultiplier1, c.w2), low1 = kMultiplier1 * c.w2;
    c = {high1 ^ c.w1 ^ key.low, low1, high0 ^ c.w3 ^ key.high, low0};
    key = {key.low + kWeyl0, key.high + kWeyl1};
  }
  return c;
}

// The uniform number in (0, 1) that a word stands for, (word + 1/2) / 2^32, keeping relative precision near 0 ...
IGF_PHILOX constexpr float unit(std::uint32_t word) { return (static_cast<float>(word) + 0.5f) * 0x1p-32f; }

// ... and one minus it, keeping relative precision where that is near 0.
IGF_PHILOX constexpr float unit_complement(std::uint32_t word) { return unit(~word); }

}  // namespace igf::philox
