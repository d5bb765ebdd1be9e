// Packing sequences of different lengths into bins of one capacity.
#pragma once

#include <cstdint>
#include <vector>

namespace igf {

// bin_of[i] for each sequence i: best-fit decreasing. Sequences are placed longest first (equal lengths in their given
// order), each into the fullest bin it still fits into (of equally full ones the oldest), or into a new bin.
// Every length must be in [0, capacity]. Time n log n.
std::vector<int64_t> pack_sequences(const int64_t* lengths, int64_t count, int64_t capacity);

}  // namespace igf
