#include "simt/where.h"

#include <link.h>

#include <cstdio>
#include <vector>

namespace igf::simt {
namespace {

// What this library's loader says about it.
struct Image {
  uintptr_t base = 0;
  std::string path;
  struct Part {
    uintptr_t begin;
    uintptr_t end;
    bool writable;
  };
  std::vector<Part> parts;

  bool holds(uintptr_t address) const {
    for (const Part& part : parts) {
      if (part.begin <= address && address < part.end) return true;
    }
    return false;
  }
};

int look_for_own(dl_phdr_info* info, size_t, void* result) {
  Image candidate;
  candidate.base = info->dlpi_addr;
  candidate.path = info->dlpi_name;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD && header.p_type != PT_GNU_RELRO) continue;
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    const bool writable = header.p_type == PT_LOAD && (header.p_flags & PF_W) != 0;
    candidate.parts.push_back({begin, begin + header.p_memsz, writable});
  }
  if (!candidate.holds(reinterpret_cast<uintptr_t>(&look_for_own))) return 0;
  *static_cast<Image*>(result) = candidate;
  return 1;
}

const Image& image() {
  static const Image own = [] {
    Image found;
    dl_iterate_phdr(look_for_own, &found);
    return found;
  }();
  return own;
}

// Sites by an open hash of (file pointer, line).
struct Sites {
  std::vector<Site> all;
  std::vector<uint32_t> table = std::vector<uint32_t>(1 << 12, 0);  // number + 1

  static size_t hash(Site site) {
    const size_t file = reinterpret_cast<uintptr_t>(site.file) >> 3;
    return file * 0x9E3779B97F4A7C15u + static_cast<size_t>(site.line) * 2654435761u;
  }

  uint32_t number_of(Site site) {
    const size_t mask = table.size() - 1;
    for (size_t i = hash(site) >> 5 & mask;; i = (i + 1) & mask) {
      if (table[i] == 0) return add(site, i);
      const Site& known = all[table[i] - 1];
      if (known.line == site.line && known.file == site.file) return table[i] - 1;
    }
  }

  uint32_t add(Site site, size_t place) {
    all.push_back(site);
    table[place] = static_cast<uint32_t>(all.size());
    if (all.size() * 2 > table.size()) {
      table.assign(table.size() * 2, 0);
      const size_t mask = table.size() - 1;
      for (size_t n = 0; n < all.size(); ++n) {
        size_t i = hash(all[n]) >> 5 & mask;
        while (table[i] != 0) i = (i + 1) & mask;
        table[i] = static_cast<uint32_t>(n + 1);
      }
    }
    return static_cast<uint32_t>(all.size() - 1);
  }
};

Sites& sites() {
  static Sites instance;
  return instance;
}

// "csrc/x.cuh:3" of a line that addr2line printed, empty where it knew nothing.
std::string place_in(std::string line) {
  line.erase(line.find_last_not_of("\n ") + 1);
  const size_t remark = line.find(" (discriminator");
  if (remark != std::string::npos) line.erase(remark);
  if (line.empty() || line[0] == '?') return "";
  const size_t sources = line.rfind("csrc/");  // before it stands the folder of the build
  return sources == std::string::npos ? line : line.substr(sources);
}

// The line of the access, and that of the kernel it was inlined into.
std::string symbolised(uintptr_t offset) {
  char number[32];
  std::snprintf(number, sizeof number, "0x%zx", static_cast<size_t>(offset));
  std::string inner;
  std::string outer;
  FILE* const pipe = popen(("addr2line -i -e '" + image().path + "' " + number + " 2>/dev/null").c_str(), "r");
  if (pipe != nullptr) {
    char line[1024];
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
      const std::string place = place_in(line);
      if (inner.empty()) inner = place;
      // The last frames are those that start the kernel.
      if (place.find("device/launch") == std::string::npos) outer = place;
    }
    pclose(pipe);
  }
  if (inner.empty()) {
    return std::string(number) + " of " + image().path + " (install addr2line, of binutils, to see the line)";
  }
  return outer.empty() || outer == inner ? inner : inner + " (from " + outer + ")";
}

}  // namespace

Where where_of(Site site) { return site.file == nullptr ? 0 : kWhereIsSite | sites().number_of(site); }

Where where_of(const void* program_counter) {
  static const uintptr_t base = image().base;
  return static_cast<Where>(reinterpret_cast<uintptr_t>(program_counter) - base) & ~(kWhereIsSite | kWhereFree);
}

std::string describe(Where where) {
  where &= ~kWhereFree;
  if (where == 0) return "an unknown place";
  if ((where & kWhereIsSite) == 0) return symbolised(where - 1);
  const Site site = sites().all[where & ~kWhereIsSite];
  return std::string(site.file) + ":" + std::to_string(site.line);
}

bool is_library(uintptr_t address) { return image().holds(address); }

bool is_constant(uintptr_t address, uint32_t bytes) {
  bool constant = false;
  for (const Image::Part& part : image().parts) {
    if (part.begin <= address && address + bytes <= part.end) constant = constant || !part.writable;
  }
  return constant;
}

}  // namespace igf::simt
