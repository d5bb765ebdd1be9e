// Four neighbouring elements a thread, of arrays that may end within the four or begin off a 16-byte boundary.
//
// A thread owns the same elements however they are moved, so the bits of a result do not depend on the alignment.
#pragma once

#include "device/vectors.cuh"

namespace igf::device {

// Where a thread's four elements lie.
struct Four {
  int64_t first;
  int present;  // how many exist, [0, 4]
  bool whole;   // all four, and one access moves them
};

// aligned: the arrays of floats that are read and written here stand on 16 bytes, their masks on 4.
IGF_DEVICE Four four_at(int64_t first, int64_t count, bool aligned) {
  const int64_t left = count - first;
  const int present = left >= 4 ? 4 : left <= 0 ? 0 : static_cast<int>(left);
  return {first, present, aligned && present == 4};
}

// Floats that the launch reads once; what does not exist is 0.
IGF_DEVICE void load_four_once(float (&values)[4], const float* base, const Four& at IGF_SITE_PARAMETER) {
  if (at.whole) {
    load_vector_once(values, base + at.first, 0 IGF_SITE);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = i < at.present ? load_once(base + at.first + i IGF_SITE) : 0.0f;
  }
}

IGF_DEVICE void load_four(float (&values)[4], const float* base, const Four& at IGF_SITE_PARAMETER) {
  if (at.whole) {
    load_vector(values, base + at.first, 0 IGF_SITE);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = i < at.present ? load(base + at.first + i IGF_SITE) : 0.0f;
  }
}

// torch.bool: 1 counts. What does not exist does not count.
IGF_DEVICE void load_four_flags(bool (&flags)[4], const uint8_t* base, const Four& at IGF_SITE_PARAMETER) {
  if (at.whole) {
    const Vector<uint8_t, 4> bytes = load_once(reinterpret_cast<const Vector<uint8_t, 4>*>(base + at.first) IGF_SITE);
#pragma unroll
    for (int i = 0; i < 4; ++i) flags[i] = bytes.lanes[i] != 0;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) flags[i] = i < at.present && load_once(base + at.first + i IGF_SITE) != 0;
  }
}

IGF_DEVICE void store_four(float* base, const Four& at, const float (&values)[4] IGF_SITE_PARAMETER) {
  if (at.whole) {
    store_vector(base + at.first, 0, values IGF_SITE);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < at.present) store(base + at.first + i, values[i] IGF_SITE);
    }
  }
}

}  // namespace igf::device
