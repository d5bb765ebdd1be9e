#include "simt/control.h"

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>

#include "simt/accounting.h"
#include "simt/buffers.h"
#include "simt/launch.h"
#include "simt/mutation.h"
#include "simt/options.h"
#include "simt/where.h"

namespace igf::simt {
namespace {

// Text in quotes; what is written here has neither quotes nor control characters but in file names.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

// A JSON object or array, written item by item.
class Json {
 public:
  explicit Json(char open) : close_(open == '{' ? '}' : ']') { text_ << open; }
  template <typename T>
  Json& add(const char* name, const T& value) {
    text_ << separator_ << quoted(name) << ':' << value;
    separator_ = ",";
    return *this;
  }
  Json& add(const std::string& item) {
    text_ << separator_ << item;
    separator_ = ",";
    return *this;
  }
  std::string done() {
    text_ << close_;
    return text_.str();
  }

 private:
  std::ostringstream text_;
  const char* separator_ = "";
  char close_;
};

std::string json_of(const Flow& flow) {
  return Json('{').add("bytes", flow.bytes).add("unique", flow.unique_bytes).add("sectors", flow.sectors)
      .add("ideal", flow.ideal_sectors).done();
}

std::string json_of(const BufferTraffic& buffer) {
  return Json('{').add("name", quoted(buffer.name)).add("begin", buffer.begin).add("size", buffer.size)
      .add("loads", json_of(buffer.flows[0])).add("stores", json_of(buffer.flows[1]))
      .add("atomics", json_of(buffer.flows[2])).done();
}

std::string json_of(const PlaceTraffic& place) {
  static const char* const kDirections[] = {"load", "store", "atomic"};
  const std::string site = place.site.file == nullptr ? "" : place.site.file + (":" + std::to_string(place.site.line));
  return Json('{').add("site", quoted(site)).add("program_counter", place.pc)
      .add("space", quoted(place.space == Space::kGlobal ? "global" : "shared"))
      .add("direction", quoted(kDirections[static_cast<size_t>(place.direction)])).add("accesses", place.accesses)
      .add("bytes", place.bytes).add("cost", place.cost).add("ideal", place.ideal).done();
}

std::string json_of(const LaunchAccount& launch) {
  Json buffers('['), places('['), words('{'), grid('['), block('[');
  for (const BufferTraffic& buffer : launch.buffers) buffers.add(json_of(buffer));
  for (const PlaceTraffic& place : launch.places) places.add(json_of(place));
  for (size_t word = 0; word < launch.said.size(); ++word) {
    if (launch.said[word] != 0) words.add(name_of(static_cast<Word>(word)), launch.said[word]);
  }
  grid.add(std::to_string(launch.facts.blocks_x)).add(std::to_string(launch.facts.blocks_y));
  block.add(std::to_string(launch.facts.threads_x)).add(std::to_string(launch.facts.threads_y));
  return Json('{').add("kernel", quoted(launch.kernel)).add("grid", grid.done()).add("block", block.done())
      .add("static_shared_bytes", launch.facts.static_shared_bytes)
      .add("dynamic_shared_bytes", launch.facts.dynamic_shared_bytes).add("buffers", buffers.done())
      .add("places", places.done()).add("words", words.done()).add("wavefronts", launch.wavefronts)
      .add("ideal_wavefronts", launch.ideal_wavefronts).done();
}

std::map<std::string, std::string> parsed(const char* lines) {
  std::map<std::string, std::string> values;
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    const size_t equals = line.find('=');
    values[line.substr(0, equals)] = equals == std::string::npos ? "" : line.substr(equals + 1);
  }
  return values;
}

int64_t number(const std::map<std::string, std::string>& values, const char* name, int64_t otherwise) {
  const auto found = values.find(name);
  return found == values.end() ? otherwise : std::atoll(found->second.c_str());
}

}  // namespace
}  // namespace igf::simt

using namespace igf::simt;

void igf_simt_begin(const char* lines) {
  const std::map<std::string, std::string> values = parsed(lines);
  const Options standard;
  Options chosen;
  chosen.schedule = static_cast<Schedule>(number(values, "schedule", 0));
  chosen.arrival = static_cast<Arrival>(number(values, "copies", 0));
  chosen.seed = static_cast<uint64_t>(number(values, "seed", 0));
  chosen.multiprocessors = static_cast<int>(number(values, "multiprocessors", standard.multiprocessors));
  chosen.architecture = static_cast<int>(number(values, "architecture", standard.architecture));
  chosen.most_words = static_cast<int64_t>(number(values, "most_words", 0));
  options() = chosen;
  const auto kind = values.find("mutation");
  const auto site = values.find("mutation_site");
  const bool breaks = kind != values.end() && mutation_called(kind->second) != Mutation::kNone;
  site_mutator().choose(breaks ? mutation_called(kind->second) : Mutation::kNone,
                        breaks && site != values.end() ? site->second : "");
  const bool records = number(values, "sites", 0) != 0;
  site_mutator().record(records);
  accounting().take();
  set_observer(number(values, "accounting", 0) != 0 ? &accounting() : nullptr);
  set_mutator(breaks || records ? &site_mutator() : nullptr);
}

void igf_simt_end() {
  set_observer(nullptr);
  set_mutator(nullptr);
  buffers().clear();
}

void igf_simt_op_begins() {
  buffers().clear();
  launch_failed = false;
}

void igf_simt_name_buffer(const void* begin, size_t bytes, const char* name) {
  buffers().name(reinterpret_cast<uintptr_t>(begin), bytes, name);
}

void igf_simt_op_ends() { buffers().clear(); }

const char* igf_simt_take_launches() {
  static std::string text;
  Json launches('[');
  for (const LaunchAccount& launch : accounting().take()) launches.add(json_of(launch));
  text = launches.done();
  return text.c_str();
}

const char* igf_simt_sites() {
  static std::string text;
  Json sites('[');
  for (const SiteMutator::Seen& seen : site_mutator().sites()) {
    sites.add(Json('{').add("kind", quoted(name_of(seen.kind))).add("where", quoted(seen.place)).add("visits", seen.visits).done());
  }
  text = sites.done();
  return text.c_str();
}

int igf_simt_launch_failed() { return launch_failed ? 1 : 0; }

const char* igf_simt_describe(uint64_t program_counter) {
  static std::string text;
  text = describe(where_of(reinterpret_cast<const void*>(program_counter)));
  return text.c_str();
}

uint64_t igf_simt_mutation_applied() { return site_mutator().applied(); }
