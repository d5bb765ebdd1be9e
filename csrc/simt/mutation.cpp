#include "simt/mutation.h"

#include <algorithm>
#include <array>

namespace igf::simt {

namespace {

constexpr std::array<const char*, kMutations> kNames = {
    "none",       "drop_barrier", "drop_warp_barrier", "drop_fence",  "drop_wait",
    "drop_store", "drop_atomic",  "shift_load",        "shift_store", "shuffle_wrong_lane"};

}  // namespace

const char* name_of(Mutation kind) { return kNames[static_cast<size_t>(kind)]; }

Mutation mutation_called(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  return found == kNames.end() ? Mutation::kNone : static_cast<Mutation>(found - kNames.begin());
}

void Mutations::choose(Mutation kind, const std::string& place) {
  const size_t colon = place.rfind(':');
  chosen_ = kind;
  file_ = place.substr(0, colon);
  line_ = colon == std::string::npos ? 0 : std::atoi(place.c_str() + colon + 1);
  applied_ = 0;
}

void Mutations::record(bool on) {
  recording_ = on;
  seen_.clear();
}

bool Mutations::is_chosen(const char* file) {
  const std::string_view said = file;
  if (!said.ends_with(file_)) return false;
  return said.size() == file_.size() || said[said.size() - file_.size() - 1] == '/';
}

void Mutations::note(Mutation kind, const char* file, int line) {
  const size_t index = static_cast<size_t>(line) * kMutations + static_cast<size_t>(kind);
  if (index >= seen_.size()) seen_.resize(index + 1);
  for (Seen& seen : seen_[index]) {
    if (seen.file == file) {
      ++seen.visits;
      return;
    }
  }
  seen_[index].push_back({file, 1});
}

std::vector<MutationSite> Mutations::sites() const {
  std::vector<MutationSite> all;
  for (size_t index = 0; index < seen_.size(); ++index) {
    for (const Seen& seen : seen_[index]) {
      const Mutation kind = static_cast<Mutation>(index % kMutations);
      const std::string place = std::string(seen.file) + ":" + std::to_string(index / kMutations);
      const auto same = [&](const MutationSite& other) { return other.kind == kind && other.place == place; };
      const auto found = std::find_if(all.begin(), all.end(), same);  // one header, compiled into several files
      if (found == all.end()) {
        all.push_back({kind, place, seen.visits});
      } else {
        found->visits += seen.visits;
      }
    }
  }
  return all;
}

Mutations& mutations() {
  static Mutations instance;
  return instance;
}

uintptr_t shifted(uintptr_t address, size_t bytes, uintptr_t begin, uintptr_t end) {
  if (address + 2 * bytes <= end) return address + bytes;
  return address >= begin + bytes ? address - bytes : address;
}

}  // namespace igf::simt
