// Rules of memory: bounds, alignment, whose memory it is, what it holds before it is written.
#include "device/launch.cuh"
#include "device/vectors.cuh"
#include "simt/selftest/selftest.h"

namespace igf {
namespace {

using namespace device;
using simt::Bench;
using simt::kBenchValues;

constexpr int kThreads = 64;

IGF_KERNEL(kThreads) copy_by_words(const float* in, float* out, int first) {
  store(out + thread_x(), load(in + first + thread_x()));
}

template <bool kBroken>
void load_past_the_end(const Bench& bench) {
  launch("copy_by_words", &copy_by_words, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         kBenchValues - kThreads + (kBroken ? 1 : 0));
  bench.expect(63, (kBenchValues - 1) % 64);
}
IGF_SELFTEST(load_past_the_end);

template <bool kBroken>
void load_before_the_first(const Bench& bench) {
  launch("copy_by_words", &copy_by_words, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out, kBroken ? -1 : 0);
  bench.expect(63, 63.0f);
}
IGF_SELFTEST(load_before_the_first);

IGF_KERNEL(kThreads) copy_plainly(const float* in, float* out, int from, int to) {
  out[to + thread_x()] = in[from + thread_x()];
}

template <bool kBroken>
void plain_read_past_the_end(const Bench& bench) {
  launch("copy_plainly", &copy_plainly, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         kBenchValues - kThreads + (kBroken ? 1 : 0), 0);
  bench.expect(63, (kBenchValues - 1) % 64);
}
IGF_SELFTEST(plain_read_past_the_end);

template <bool kBroken>
void plain_write_past_the_end(const Bench& bench) {
  constexpr int kLast = kBenchValues - kThreads;
  launch("copy_plainly", &copy_plainly, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out, 0,
         kLast + (kBroken ? 1 : 0));
  bench.expect(kLast + 63, 63.0f);
}
IGF_SELFTEST(plain_write_past_the_end);

// Sixteen floats copied as one object: a copy that the compiler may make by a call.
struct Wide {
  float values[16];
};

IGF_KERNEL(1) copy_object(const float* in, float* out, int to) {
  reinterpret_cast<Wide*>(out + to)[0] = reinterpret_cast<const Wide*>(in)[0];
}

template <bool kBroken>
void object_past_the_end(const Bench& bench) {
  constexpr int kLast = kBenchValues - 16;
  launch("copy_object", &copy_object, {1, 1, 1, 1}, bench.context, bench.in, bench.out, kLast + (kBroken ? 1 : 0));
  bench.expect(kBenchValues - 1, 15.0f);
}
IGF_SELFTEST(object_past_the_end);

IGF_KERNEL(1) copy_bytes(const float* in, float* out, size_t bytes) { memcpy(out, in, bytes); }

template <bool kBroken>
void memcpy_past_the_end(const Bench& bench) {
  launch("copy_bytes", &copy_bytes, {1, 1, 1, 1}, bench.context, bench.in, bench.out,
         sizeof(float) * kBenchValues + (kBroken ? 1 : 0));
  bench.expect(kBenchValues - 1, (kBenchValues - 1) % 64);
}
IGF_SELFTEST(memcpy_past_the_end);

IGF_KERNEL(kThreads) copy_vectors(const float* in, float* out, int first) {
  float values[4];
  load_vector(values, in + first, thread_x());
  store_vector(out, thread_x(), values);
}

template <bool kBroken>
void misaligned_vector(const Bench& bench) {
  launch("copy_vectors", &copy_vectors, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out, kBroken ? 1 : 4);
  bench.expect(0, 4.0f);
}
IGF_SELFTEST(misaligned_vector);

template <bool kBroken>
void vector_half_past_the_end(const Bench& bench) {
  constexpr int kLast = kBenchValues / 4 * 4 - 4 * kThreads;
  launch("copy_vectors", &copy_vectors, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out,
         kLast + (kBroken ? 4 : 0));
  bench.expect(4 * kThreads - 1, 63.0f);
}
IGF_SELFTEST(vector_half_past_the_end);

// A plain access of 8 bytes, 4 past a multiple of 8.
template <bool kBroken>
IGF_KERNEL(1) read_pair(const float* in, float* out) {
  const int64_t pair = *reinterpret_cast<const int64_t*>(in + (kBroken ? 1 : 2));
  store(out, static_cast<float>(pair != 0));
}

template <bool kBroken>
void misaligned_plain_read(const Bench& bench) {
  launch("read_pair", &read_pair<kBroken>, {1, 1, 1, 1}, bench.context, bench.in, bench.out);
  bench.expect(0, 1.0f);
}
IGF_SELFTEST(misaligned_plain_read);

template <bool kBroken>
IGF_KERNEL(kThreads) vectors_in_shared(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, line, kThreads + 4);
  line[thread_x()] = load(in + thread_x());
  block_barrier();  // the line is whole
  if (thread_x() < 15) {
    float values[4];
    load_vector(values, line + (kBroken ? 2 : 4), thread_x());
    store(out + thread_x(), values[0]);
  }
}

template <bool kBroken>
void misaligned_vector_in_shared(const Bench& bench) {
  launch("vectors_in_shared", &vectors_in_shared<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  bench.expect(1, 8.0f);
}
IGF_SELFTEST(misaligned_vector_in_shared);

template <bool kBroken>
IGF_KERNEL(kThreads) neighbour_in_shared(const float* in, float* out) {
  IGF_SHARED_ARRAY(float, line, kThreads);
  IGF_SHARED_ARRAY(float, other, kThreads);
  line[thread_x()] = load(in + thread_x());
  other[thread_x()] = 0.0f;
  block_barrier();  // both lines are whole
  store(out + thread_x(), line[kBroken ? thread_x() + 1 : (thread_x() + 1) % kThreads] + other[thread_x()]);
}

template <bool kBroken>
void static_shared_past_the_end(const Bench& bench) {
  launch("neighbour_in_shared", &neighbour_in_shared<kBroken>, {1, 1, kThreads, 1}, bench.context, bench.in, bench.out);
  bench.expect(63, 0.0f);
}
IGF_SELFTEST(static_shared_past_the_end);

IGF_KERNEL(kThreads) turn_in_dynamic_shared(const float* in, float* out) {
  IGF_DYNAMIC_SHARED(bytes);
  float* const line = reinterpret_cast<float*>(bytes);
  line[thread_x()] = load(in + thread_x());
  block_barrier();  // the line is whole
  store(out + thread_x(), line[kThreads - 1 - thread_x()] + static_cast<float>(shared_address(bytes) % 1024));
}

template <bool kBroken>
void dynamic_shared_too_small(const Bench& bench) {
  launch("turn_in_dynamic_shared", &turn_in_dynamic_shared,
         {1, 1, kThreads, 1, kThreads * 4 - (kBroken ? 4 : 0)}, bench.context, bench.in, bench.out);
  bench.expect(0, 63.0f);
}
IGF_SELFTEST(dynamic_shared_too_small);

template <bool kBroken>
void dynamic_shared_forgotten(const Bench& bench) {
  launch("turn_in_dynamic_shared", &turn_in_dynamic_shared, {1, 1, kThreads, 1, kBroken ? 0 : kThreads * 4},
         bench.context, bench.in, bench.out);
  bench.expect(0, 63.0f);
}
IGF_SELFTEST(dynamic_shared_forgotten);

template <bool kBroken>
void dynamic_shared_beyond_any_gpu(const Bench& bench) {
  launch("turn_in_dynamic_shared", &turn_in_dynamic_shared, {1, 1, kThreads, 1, (kBroken ? 163 : 160) << 10},
         bench.context, bench.in, bench.out);
  bench.expect(0, 63.0f);
}
IGF_SELFTEST(dynamic_shared_beyond_any_gpu);

template <int kFloats>
IGF_KERNEL(kThreads) large_static(float* out) {
  IGF_SHARED_ARRAY(float, large, kFloats);
  large[kFloats - 1 - thread_x()] = 1.0f;
  store(out + thread_x(), large[kFloats - 1 - thread_x()]);
}

template <bool kBroken>
void static_shared_beyond_any_gpu(const Bench& bench) {
  launch("large_static", &large_static<(48 << 10) / 4 + (kBroken ? 1 : 0)>, {1, 1, kThreads, 1}, bench.context,
         bench.out);
  bench.expect(0, 1.0f);
}
IGF_SELFTEST(static_shared_beyond_any_gpu);

template <bool kBroken>
IGF_KERNEL(1) write_input(const float* in, float* out) {
  store(kBroken ? const_cast<float*>(in) : out, 5.0f);
}

template <bool kBroken>
void write_to_an_input(const Bench& bench) {
  launch("write_input", &write_input<kBroken>, {1, 1, 1, 1}, bench.context, bench.in, bench.out);
  bench.expect(0, 5.0f);
}
IGF_SELFTEST(write_to_an_input);

template <bool kBroken>
IGF_KERNEL(32) look_into_a_neighbour(float* out) {
  IGF_SHARED_ARRAY(const float*, where, 32);
  IGF_SHARED_ARRAY(float, values, 32);
  const float own = static_cast<float>(lane_index());
  values[lane_index()] = own;
  where[lane_index()] = kBroken ? &own : values + lane_index();
  warp_barrier();  // all addresses are known
  store(out + lane_index(), *where[lane_index() ^ 1]);
}

template <bool kBroken>
void local_variable_of_another_thread(const Bench& bench) {
  launch("look_into_a_neighbour", &look_into_a_neighbour<kBroken>, {1, 1, 32, 1}, bench.context, bench.out);
  bench.expect(4, 5.0f);
}
IGF_SELFTEST(local_variable_of_another_thread);

int calls = 0;
const float kTable[] = {2.0f, 3.0f, 5.0f, 7.0f};

template <bool kBroken>
IGF_KERNEL(4) use_variable(float* out) {
  if constexpr (kBroken) calls += 1;
  store(out + thread_x(), kTable[thread_x()]);
}

template <bool kBroken>
void global_variable(const Bench& bench) {
  launch("use_variable", &use_variable<kBroken>, {1, 1, 4, 1}, bench.context, bench.out);
  bench.expect(3, 7.0f);
}
IGF_SELFTEST(global_variable);

IGF_KERNEL(32) read_unwritten(uint32_t* bits) {
  IGF_SHARED_ARRAY(uint32_t, unwritten, 32);
  if (lane_index() == 0) store(bits, unwritten[31]);
}

void shared_memory_begins_as_nan(const Bench& bench) {
  launch("read_unwritten", &read_unwritten, {1, 1, 32, 1}, bench.context, bench.counters);
  bench.expect_count(0, 0xffffffffu);
}
IGF_SOUND(shared_memory_begins_as_nan);

// Instances of one template have arrays of their own; one that is met twice is the same.
template <typename T, int kCount>
IGF_DEVICE T* own_array() {
  IGF_SHARED_ARRAY(T, own, kCount);
  return own;
}

IGF_KERNEL(1) ask_for_arrays(float* out) {
  float* const four = own_array<float, 4>();
  float* const eight = own_array<float, 8>();
  const bool apart = eight >= four + 4 || four >= eight + 8;
  store(out, apart && four == own_array<float, 4>() ? 1.0f : 0.0f);
}

void arrays_of_template_instances(const Bench& bench) {
  launch("ask_for_arrays", &ask_for_arrays, {1, 1, 1, 1}, bench.context, bench.out);
  bench.expect(0, 1.0f);
}
IGF_SOUND(arrays_of_template_instances);

}  // namespace
}  // namespace igf
