#include "simt/registers.h"

#include <algorithm>

#include "simt/async_words.h"
#include "simt/fault.h"
#include "simt/proxies.h"
#include "simt/sync.h"

namespace igf::simt {
namespace {

constexpr int kFile = 65536;      // registers of a multiprocessor
constexpr int kWarpsOfGroup = 4;  // of a warpgroup

Registers& registers_of(Block& block) {
  if (block.registers != nullptr) return *block.registers;
  block.registers = std::make_shared<Registers>();
  const int each = std::min(256, kFile / current_launch->facts.thread_bound / 8 * 8);
  block.registers->warps.resize(static_cast<size_t>(current_launch->warps));
  for (RegisterWarp& warp : block.registers->warps) warp.registers = each;
  return *block.registers;
}

[[noreturn]] void fail_of_registers(const std::string& rule, Word word, Site site, const std::string& advice,
                                    const RegisterWarp::Said* other = nullptr) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  if (other != nullptr) {
    fault.steps.push_back({"another warp of the warpgroup says " + std::string(name_of(other->word)) + " of " +
                               std::to_string(other->registers), where_of(other->site)});
  }
  fault.advice = advice;
  fail(std::move(fault));
}

// The other warps of the group have said the same up to here, and have met before this word.
void check_group(const Registers& all, int warp, const RegisterWarp::Said& now) {
  const size_t number = all.warps[static_cast<size_t>(warp)].said.size();
  const int first = warp / kWarpsOfGroup * kWarpsOfGroup;
  if (first + kWarpsOfGroup > current_launch->warps) {
    fail_of_registers("registers are set by less than a warpgroup", now.word, now.site,
                      "four warps in a row, the first one's number a multiple of 4");
  }
  for (int other = first; other < first + kWarpsOfGroup; ++other) {
    const std::vector<RegisterWarp::Said>& said = all.warps[static_cast<size_t>(other)].said;
    if (number < said.size() && (said[number].word != now.word || said[number].registers != now.registers)) {
      fail_of_registers("the warps of a warpgroup set registers differently", now.word, now.site,
                        "all four warps say the same word with the same number", &said[number]);
    }
    if (number == 0 || other == warp) continue;
    if (said.size() < number || !has_happened(said[number - 1].mark)) {
      fail_of_registers("registers are set again before the warpgroup has met", now.word, now.site,
                        "all four warps must meet at a barrier between two such words");
    }
  }
}

void check_number(const RegisterWarp& warp, int registers, Word word, Site site) {
  const bool releases = word == Word::kReleaseRegisters;
  if (releases ? registers <= warp.registers : registers >= warp.registers) return;
  fail_of_registers("a warp that has " + std::to_string(warp.registers) + " registers a thread " +
                        (releases ? "releases down to " : "claims up to ") + std::to_string(registers),
                    word, site, "the launch bound of the kernel says how many a thread has at the start");
}

// Gives what the pool holds to claims that wait, in the order of the warps.
void grant(Block& block, Registers& all) {
  for (size_t w = 0; w < all.warps.size(); ++w) {
    RegisterWarp& warp = all.warps[w];
    if (warp.wanted == 0 || warp.wanted - warp.registers > all.pool) continue;
    all.pool -= warp.wanted - warp.registers;
    warp.registers = warp.wanted;
    warp.wanted = 0;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      Thread& thread = thread_of(block, static_cast<int>(w) * kWarpLanes + lane);
      if (thread.state == State::kWaiting && thread.waits_at == Word::kClaimRegisters && thread.waits_lanes == 0) {
        make_ready(thread);
      }
    }
    current_launch->waits_in_vain = 0;
  }
}

}  // namespace

void set_registers(int registers, Word word, Site site) {
  check_architecture(90, true, word, site);
  if (say(word, site)) return;
  LaneValues forms;
  warp_exchange(word, static_cast<uint64_t>(registers), forms, site);
  Thread& thread = *turn.thread;
  Block& block = *thread.block;
  Registers& all = registers_of(block);
  RegisterWarp& warp = all.warps[static_cast<size_t>(thread.who.warp)];
  const int visit = ++warp.visits[static_cast<size_t>(thread.who.lane)];
  if (visit > static_cast<int>(warp.said.size())) {
    for (const uint64_t form : forms.of) {
      if (form != forms.of[0]) {
        fail_of_registers("the lanes of a warp set registers differently", word, site, "all lanes say the same number");
      }
    }
    const RegisterWarp::Said now{word, registers, site, {turn.number, turn.clock, 0}};
    check_group(all, thread.who.warp, now);
    check_number(warp, registers, word, site);
    warp.said.push_back(now);
    if (word == Word::kReleaseRegisters) {
      all.pool += warp.registers - registers;
      warp.registers = registers;
    } else {
      warp.wanted = registers;
    }
    grant(block, all);
  }
  if (warp.wanted != 0) wait_here(word, site);
}

std::string describe_pool(const Block& block) {
  if (block.registers == nullptr) return "";
  std::string text;
  for (size_t w = 0; w < block.registers->warps.size(); ++w) {
    const RegisterWarp& warp = block.registers->warps[w];
    if (warp.wanted == 0) continue;
    text += (text.empty() ? "" : ", ") + ("warp " + std::to_string(w)) + " claims " +
            std::to_string(warp.wanted - warp.registers) + " registers more";
  }
  if (text.empty()) return text;
  return text + " for each thread, the pool of block " + std::to_string(block.number) + " has " +
         std::to_string(block.registers->pool) + " for each thread of one warp";
}

void check_registers_at_end(const Block& block) {
  if (block.registers == nullptr) return;
  const std::vector<RegisterWarp>& warps = block.registers->warps;
  for (size_t w = 0; w < warps.size(); ++w) {
    const std::vector<RegisterWarp::Said>& first = warps[w / kWarpsOfGroup * kWarpsOfGroup].said;
    const std::vector<RegisterWarp::Said>& said = warps[w].said;
    if (first.size() == said.size()) continue;
    const bool fewer = said.size() < first.size();
    const RegisterWarp::Said& odd = fewer ? first[said.size()] : said[first.size()];
    Fault fault;
    fault.rule = "registers were set by some warps of a warpgroup only";
    fault.steps.push_back({"warp " + std::to_string(fewer ? w : w / kWarpsOfGroup * kWarpsOfGroup) + " of block " +
                               std::to_string(block.number) + " never says " + name_of(odd.word), where_of(odd.site)});
    fault.advice = "all four warps of a warpgroup must say the word";
    fail(std::move(fault));
  }
}

}  // namespace igf::simt
