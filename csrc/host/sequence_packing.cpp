// Best-fit decreasing over an ordered set of open bins.
#include "host/sequence_packing.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

namespace igf {

std::vector<int64_t> pack_sequences(const int64_t* lengths, int64_t count, int64_t capacity) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  std::vector<int64_t> bin_of(count);
  std::set<std::pair<int64_t, int64_t>> open;  // (room left, bin), so that the first that fits is the best
  int64_t bins = 0;
  for (const int64_t index : order) {
    const auto best = open.lower_bound({lengths[index], 0});
    const bool found = best != open.end();
    const int64_t bin = found ? best->second : bins++;
    const int64_t room = (found ? best->first : capacity) - lengths[index];
    if (found) open.erase(best);
    open.insert({room, bin});
    bin_of[index] = bin;
  }
  return bin_of;
}

}  // namespace igf
