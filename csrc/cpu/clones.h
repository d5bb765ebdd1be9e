// IGF_CLONES: compiles a function for several x86-64 levels; the loader picks the best the machine has. Torch-free.
//
// Put it on a plain function (not a template, not a lambda) that does the inner loops, and put the shared body into
// an IGF_INLINE template that the function calls: a body is compiled for the level of the function it is inlined into.
//
//   template <typename T> IGF_INLINE void scale_body(const T* x, T* y, int64_t n, float s) {
//     for (int64_t i = 0; i < n; ++i) y[i] = T(float(x[i]) * s);
//   }
//   IGF_CLONES void scale_f32(const float* x, float* y, int64_t n, float s) { scale_body(x, y, n, s); }
//   IGF_CLONES void scale_bf16(const bfloat16* x, bfloat16* y, int64_t n, float s) { scale_body(x, y, n, s); }
//
// Levels differ in contraction (fused multiply-add), so the last bits of a result may differ between machines.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(IGF_NO_CLONES)
#define IGF_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define IGF_CLONES
#endif

#define IGF_INLINE inline __attribute__((always_inline))
