// Micro-kernels: conversions between number formats, elementary functions, random numbers.
#include "device/dtype.cuh"
#include "device/fast_math.cuh"
#include "device/math.h"
#include "device/memory.cuh"
#include "device/philox.h"
#include "device/ptx.cuh"
#include "microkernels/microkernels.h"

namespace igf::microkernels {
namespace {

using namespace device;

constexpr int kNumbers = 128;  // inputs of each: one a thread

IGF_DEVICE float own_float(const Arguments& a) { return load(reinterpret_cast<const float*>(a.input) + thread_x()); }

IGF_DEVICE void store_float(const Arguments& a, float value) {
  store(reinterpret_cast<float*>(a.output) + thread_x(), value);
}

// Floats to 16 bits, one a word; and 16 bits, two a word, to floats.
template <typename T>
IGF_KERNEL(kNumbers) narrow(Arguments a) {
  const T narrowed = from_float<T>(own_float(a));
  uint16_t bits;
  memcpy(&bits, &narrowed, sizeof bits);
  store(a.output + thread_x(), uint32_t{bits});
}
template <typename T>
IGF_KERNEL(kNumbers) widen(Arguments a) {
  store_float(a, to_float(load(reinterpret_cast<const T*>(a.input) + thread_x())));
}

// output[t]: input[t] in the low half, input[(t + 1) % 128] in the high half.
template <typename T>
IGF_KERNEL(kNumbers) pack(Arguments a) {
  const float next = load(reinterpret_cast<const float*>(a.input) + (thread_x() + 1) % kNumbers);
  store(a.output + thread_x(), ptx::pack_pair<T>(own_float(a), next));
}

// device/math.h: plain arithmetic, the same on every machine up to fused multiply-adds.
IGF_KERNEL(kNumbers) math_exp(Arguments a) { store_float(a, math::exp(own_float(a))); }
IGF_KERNEL(kNumbers) math_log(Arguments a) { store_float(a, math::log(own_float(a))); }
IGF_KERNEL(kNumbers) math_log1p(Arguments a) { store_float(a, math::log1p(own_float(a))); }

// device/fast_math.cuh: the GPU's own approximations.
IGF_KERNEL(kNumbers) approximate_exp2(Arguments a) { store_float(a, fast_exp2(own_float(a))); }
IGF_KERNEL(kNumbers) approximate_exp(Arguments a) { store_float(a, fast_exp(own_float(a))); }
IGF_KERNEL(kNumbers) approximate_log(Arguments a) { store_float(a, fast_log(own_float(a))); }
IGF_KERNEL(kNumbers) approximate_tanh(Arguments a) { store_float(a, fast_tanh(own_float(a))); }
IGF_KERNEL(kNumbers) approximate_rsqrt(Arguments a) { store_float(a, fast_rsqrt(own_float(a))); }
IGF_KERNEL(kNumbers) approximate_divide(Arguments a) { store_float(a, fast_divide(own_float(a), 3.0f)); }

// Key and counter of thread t: input[6 t ...]; output[6 t ...]: the four words, the first as a uniform number, and one
// minus it.
IGF_KERNEL(32) random_block(Arguments a) {
  const uint32_t* in = a.input + 6 * thread_x();
  uint32_t* out = a.output + 6 * thread_x();
  const philox::Block drawn = philox::draw({load(in + 2), load(in + 3), load(in + 4), load(in + 5)}, {load(in), load(in + 1)});
  store(out, drawn.w0);
  store(out + 1, drawn.w1);
  store(out + 2, drawn.w2);
  store(out + 3, drawn.w3);
  store(reinterpret_cast<float*>(out) + 4, philox::unit(drawn.w0));
  store(reinterpret_cast<float*>(out) + 5, philox::unit_complement(drawn.w0));
}

const MicroKernel kTable[] = {
    {"to_bfloat16", kNumbers, kNumbers, 1, kNumbers, &narrow<bfloat16>},
    {"to_half", kNumbers, kNumbers, 1, kNumbers, &narrow<half>},
    {"from_bfloat16", kNumbers / 2, kNumbers, 1, kNumbers, &widen<bfloat16>},
    {"from_half", kNumbers / 2, kNumbers, 1, kNumbers, &widen<half>},
    {"pack_bfloat16", kNumbers, kNumbers, 1, kNumbers, &pack<bfloat16>},
    {"pack_half", kNumbers, kNumbers, 1, kNumbers, &pack<half>},
    {"math_exp", kNumbers, kNumbers, 1, kNumbers, &math_exp},
    {"math_log", kNumbers, kNumbers, 1, kNumbers, &math_log},
    {"math_log1p", kNumbers, kNumbers, 1, kNumbers, &math_log1p},
    {"fast_exp2", kNumbers, kNumbers, 1, kNumbers, &approximate_exp2},
    {"fast_exp", kNumbers, kNumbers, 1, kNumbers, &approximate_exp},
    {"fast_log", kNumbers, kNumbers, 1, kNumbers, &approximate_log},
    {"fast_tanh", kNumbers, kNumbers, 1, kNumbers, &approximate_tanh},
    {"fast_rsqrt", kNumbers, kNumbers, 1, kNumbers, &approximate_rsqrt},
    {"fast_divide", kNumbers, kNumbers, 1, kNumbers, &approximate_divide},
    {"philox", 192, 192, 1, 32, &random_block},
};

}  // namespace

Table number_microkernels() { return {kTable, sizeof(kTable) / sizeof(kTable[0])}; }

}  // namespace igf::microkernels
