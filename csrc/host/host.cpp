// The pybind11 module instructgpt_fast._host: helpers for data on the host. Knows no torch.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "host/sequence_packing.h"

namespace py = pybind11;

namespace {

using Lengths = py::array_t<int64_t, py::array::c_style>;

py::array_t<int64_t> pack_sequences(const Lengths& lengths, int64_t capacity) {
  if (lengths.ndim() != 1) {
    throw py::value_error("pack_sequences: lengths must have 1 dimension, got " + std::to_string(lengths.ndim()));
  }
  const int64_t count = lengths.size();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length = lengths.data()[i];
    if (length < 0 || length > capacity) {
      throw py::value_error("pack_sequences: every length must be in [0, " + std::to_string(capacity) +
                            "], got " + std::to_string(length) + " at " + std::to_string(i));
    }
  }
  std::vector<int64_t> bins;
  {
    const py::gil_scoped_release release;
    bins = igf::pack_sequences(lengths.data(), count, capacity);
  }
  return py::array_t<int64_t>(count, bins.data());
}

py::dict build_facts() {
  py::dict facts;
  facts["compiler"] = __VERSION__;
  facts["cxx_standard"] = static_cast<int64_t>(__cplusplus);
#ifdef NDEBUG
  facts["optimised"] = true;
#else
  facts["optimised"] = false;
#endif
#ifdef __x86_64__
  // What the loader chooses among, for functions compiled for several levels (csrc/cpu/clones.h).
  facts["cpu_level"] = __builtin_cpu_supports("x86-64-v4")   ? "x86-64-v4"
                       : __builtin_cpu_supports("x86-64-v3") ? "x86-64-v3"
                                                             : "x86-64";
#else
  facts["cpu_level"] = "generic";
#endif
  return facts;
}

}  // namespace

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host-side helpers of instructgpt_fast in C++; instructgpt_fast works without this module, slower.";
  m.def("pack_sequences", &pack_sequences, py::arg("lengths").noconvert(), py::arg("capacity"),
        R"(Puts sequences into bins of `capacity` tokens by best-fit decreasing, and returns each sequence's bin.

lengths: int64 [n], each in [0, capacity]. Returns int64 [n]: bins count from 0 in the order they were opened.
Longest first (equal lengths in their given order), each into the fullest bin it fits into (of equally full ones the
oldest). Raises ValueError for a length outside the range, TypeError for another dtype.
instructgpt_fast.data.packing gives the same result in numpy where this module was not built.)");
  m.def("build_facts", &build_facts, "The compiler of the native libraries and the CPU level this machine runs them at.");
}
