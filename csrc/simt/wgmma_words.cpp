// wgmma: the threads of a warpgroup meet, the last one acts for all. wgmma_words.h says the rules.
#include "simt/wgmma_words.h"

#include "simt/fault.h"
#include "simt/sync.h"
#include "simt/wgmma_state.h"

namespace igf::simt {
namespace {

constexpr int kArchitecture = 90;  // the only one that has these words

Warpgroup& warpgroup_of(Block& block, int thread) {
  if (block.warpgroups == nullptr) {
    block.warpgroups = std::make_shared<Warpgroups>();
    block.warpgroups->of.resize(static_cast<size_t>((current_launch->threads + kWarpgroup - 1) / kWarpgroup));
    int first = 0;
    for (Warpgroup& group : block.warpgroups->of) {
      group.first = first;
      first += kWarpgroup;
    }
  }
  return block.warpgroups->of[static_cast<size_t>(thread / kWarpgroup)];
}

void add_arrived(Fault& fault, const Warpgroup& group) {
  fault.steps.push_back({"threads " + ranges(group.arrived) + " came with " + name_of(group.word), where_of(group.site)});
}

// Threads of one warpgroup came to different words, or to one word with different operands.
[[noreturn]] void fail_of_difference(const Warpgroup& group, const std::string& rule, Word word, Site site,
                                     const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  add_arrived(fault, group);
  fault.advice = advice;
  fail(std::move(fault));
}

void check_threads(const Warpgroup& group, Word word, Site site) {
  if (current_launch->options.architecture != kArchitecture) {
    fail_of_wgmma("architecture " + std::to_string(current_launch->options.architecture) + " has no wgmma", word, site,
                  "it is a word of sm_90a alone");
  }
  if (group.first + kWarpgroup > current_launch->threads) {
    fail_of_wgmma("a warpgroup has 128 threads, the block's last ones are " +
                      std::to_string(current_launch->threads - group.first),
                  word, site, "let only whole warpgroups come here: four warps from a multiple of four on");
  }
  std::vector<int> ended;
  for (int i = group.first; i < group.first + kWarpgroup; ++i) {
    if (thread_of(*turn.thread->block, i).state == State::kEnded) ended.push_back(i);
  }
  if (ended.empty()) return;
  fail_of_wgmma("early return: threads " + ranges(ended) + " of the warpgroup have left the kernel", word, site,
                "all 128 threads must come to each wgmma word");
}

// Counts the thread in; true in the one that came last, which is to do the work and then to wake the others.
bool arrive(Warpgroup& group, Word word, Site site) {
  if (group.arrived.empty()) {
    check_threads(group, word, site);
    group.word = word;
    group.site = site;
  } else if (group.word != word) {
    fail_of_difference(group, "different words meet in one warpgroup", word, site,
                       "all 128 threads must say the same wgmma words in the same order");
  }
  group.arrived.push_back(speaker().thread);
  if (group.arrived.size() == kWarpgroup) return true;
  wait_here(word, site);
  return false;
}

void wake(Warpgroup& group) {
  const Block& block = *turn.thread->block;
  group.arrived.pop_back();
  for (const int waiting : group.arrived) make_ready(thread_of(block, waiting));
  group.arrived.clear();
  current_launch->waits_in_vain = 0;
}

void check_same(const Warpgroup& group, const WgmmaForm& form, const WgmmaOffer& offer, Site site) {
  const WgmmaOffer& first = group.offers[static_cast<size_t>(group.arrived.front() - group.first)];
  const bool same = group.form == form && first.b_tile == offer.b_tile && first.add == offer.add &&
                    (form.a_in_registers || first.a_tile == offer.a_tile);
  if (same) return;
  fail_of_difference(group, "threads of one warpgroup say different products", Word::kWgmma, site,
                     "all 128 threads must hand over the same tiles and the same `add`");
}

// The warpgroup of the thread whose turn it is.
Warpgroup& own_warpgroup() { return warpgroup_of(*turn.thread->block, speaker().thread); }

}  // namespace

void fail_of_wgmma(const std::string& rule, Word word, Site site, const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

void wgmma_fence(Site site) {
  if (say(Word::kWgmmaFence, site)) return;
  Warpgroup& group = own_warpgroup();
  const bool last = arrive(group, Word::kWgmmaFence, site);
  if (last) {
    for (int i = 0; i < kWarpgroup && !group.fenced; ++i) {
      group.watches.emplace_back(thread_of(*turn.thread->block, group.first + i));
    }
    group.fenced = true;
    wake(group);
  }
  RegisterWatch& watch = group.watches[static_cast<size_t>(speaker().thread - group.first)];
  watch_registers(watch);
  watch.fence();
}

void wgmma_commit(Site site) {
  if (say(Word::kWgmmaCommit, site)) return;
  Warpgroup& group = own_warpgroup();
  if (!arrive(group, Word::kWgmmaCommit, site)) return;
  ++group.group;
  wake(group);
}

void wgmma_wait(int pending, Site site) {
  if (say(Word::kWgmmaWait, site)) return;
  Warpgroup& group = own_warpgroup();
  if (group.arrived.empty()) group.pending = pending;
  if (group.word == Word::kWgmmaWait && !group.arrived.empty() && group.pending != pending) {
    fail_of_difference(group, "threads of one warpgroup wait for different groups", Word::kWgmmaWait, site,
                       "all 128 threads must leave as many groups pending");
  }
  if (!arrive(group, Word::kWgmmaWait, site)) return;
  end_products(group, pending);
  wake(group);
}

void wgmma(const WgmmaForm& form, const WgmmaOffer& offer, Site site) {
  if (say(Word::kWgmma, site)) return;
  Warpgroup& group = own_warpgroup();
  if (group.arrived.empty()) {
    group.form = form;
  } else if (group.word == Word::kWgmma) {
    check_same(group, form, offer, site);
  }
  group.offers[static_cast<size_t>(speaker().thread - group.first)] = offer;
  if (!arrive(group, Word::kWgmma, site)) return;
  issue_product(group, form, site);
  wake(group);
}

void check_warpgroup_at_end(Thread& thread) {
  if (thread.block->warpgroups == nullptr) return;
  const Warpgroup& group = warpgroup_of(*thread.block, thread.who.thread);
  if (group.arrived.empty() && group.products.empty()) return;
  Fault fault;
  fault.steps.push_back({name_of(thread.who) + " returned"});
  if (!group.arrived.empty()) {
    fault.rule = "early return: the warpgroup's other threads wait for one that has left the kernel";
    add_arrived(fault, group);
    fault.advice = "all 128 threads must come to each wgmma word";
  } else {
    const WgmmaProduct& product = group.products.front();
    fault.rule = "a product is still under way at the end of the kernel";
    fault.steps.push_back({"it was issued", where_of(product.site)});
    fault.advice = product.group < group.group ? "say wgmma_wait<0> before the end"
                                               : "it belongs to no group: say wgmma_commit after it, then wgmma_wait<0>";
  }
  fail(std::move(fault));
}

}  // namespace igf::simt
