// wgmma: threads of a warpgroup meet, products are issued, committed, waited for. wgmma_words.h says the rules.
#include "simt/wgmma_words.h"

#include <cstring>

#include "simt/fault.h"
#include "simt/sync.h"
#include "simt/wgmma_state.h"

namespace igf::simt {
namespace {

Warpgroup& warpgroup_of(Block& block, int thread) {
  if (block.warpgroups == nullptr) {
    block.warpgroups = std::make_shared<Warpgroups>();
    block.warpgroups->of.resize(static_cast<size_t>((current_launch->threads + kWarpgroup - 1) / kWarpgroup));
  }
  return block.warpgroups->of[static_cast<size_t>(thread / kWarpgroup)];
}

[[noreturn]] void fail_of_wgmma(const std::string& rule, Word word, Site site, const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

const unsigned char* shared_base() { return reinterpret_cast<const unsigned char*>(turn.shared_low); }

// Threads of one warpgroup came to different words, or to one word with different operands.
[[noreturn]] void fail_of_difference(const Warpgroup& group, const std::string& rule, Word word, Site site,
                                     const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(speaker()) + " says " + name_of(word), where_of(site)});
  fault.steps.push_back({"threads " + ranges(group.arrived) + " came with " + name_of(group.word), where_of(group.site)});
  fault.advice = advice;
  fail(std::move(fault));
}

void check_threads(const Warpgroup& group, Word word, Site site) {
  const int first = speaker().thread / kWarpgroup * kWarpgroup;
  if (first + kWarpgroup > current_launch->threads) {
    fail_of_wgmma("a warpgroup has 128 threads, the block's last ones are " +
                      std::to_string(current_launch->threads - first),
                  word, site, "launch a multiple of 128 threads, or let only whole warpgroups come here");
  }
  std::vector<int> ended;
  for (int i = 0; i < kWarpgroup; ++i) {
    if (thread_of(*turn.thread->block, first + i).state == State::kEnded) ended.push_back(first + i);
  }
  if (ended.empty()) return;
  fail_of_wgmma("early return: threads " + ranges(ended) + " of the warpgroup have left the kernel", word, site,
                "all 128 threads must come to each wgmma word");
  (void)group;
}

// Counts the thread in; true in the one that came last, which is to do the work and then to wake().
bool arrive(Warpgroup& group, Word word, Site site) {
  Thread& thread = *turn.thread;
  if (group.arrived.empty()) {
    check_threads(group, word, site);
    group.word = word;
    group.site = site;
  } else if (group.word != word) {
    fail_of_difference(group, "different words meet in one warpgroup", word, site,
                       "all 128 threads must say the same wgmma words in the same order");
  }
  group.arrived.push_back(thread.who.thread);
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

std::list<WgmmaSums>::iterator sums_of(Warpgroup& group, const WgmmaForm& form, Site site) {
  for (auto sums = group.sums.begin(); sums != group.sums.end(); ++sums) {
    int same = 0;
    for (int i = 0; i < kWarpgroup; ++i) same += sums->places[i] == group.offers[i].sums ? 1 : 0;
    if (same == 0) continue;
    if (same == kWarpgroup && sums->columns == form.columns) return sums;
    fail_of_wgmma("a product takes part of the sums of another one that is under way", Word::kWgmma, site,
                  "wait for the other one first");
  }
  WgmmaSums& sums = group.sums.emplace_front();
  sums.columns = form.columns;
  for (int i = 0; i < kWarpgroup; ++i) sums.places[i] = group.offers[i].sums;
  sums.values.resize(static_cast<size_t>(kWgmmaRows) * form.columns);
  return group.sums.begin();
}

void gather(WgmmaSums& sums) {
  for (int thread = 0; thread < kWarpgroup; ++thread) {
    for (int i = 0; i < sums.columns / 2; ++i) {
      const Place at = place_in_sums(thread, i);
      sums.values[static_cast<size_t>(at.row) * sums.columns + at.column] = sums.places[thread][i];
    }
  }
}

void scatter(const WgmmaSums& sums) {
  for (int thread = 0; thread < kWarpgroup; ++thread) {
    for (int i = 0; i < sums.columns / 2; ++i) {
      const Place at = place_in_sums(thread, i);
      sums.places[thread][i] = sums.values[static_cast<size_t>(at.row) * sums.columns + at.column];
    }
  }
}

size_t bytes_of_sums(const WgmmaSums& sums) { return static_cast<size_t>(sums.columns) / 2 * sizeof(float); }

void poison(WgmmaSums& sums) {
  for (float* const place : sums.places) std::memset(place, 0xff, bytes_of_sums(sums));
}

void compute(const WgmmaProduct& product, const std::array<WgmmaOffer, kWarpgroup>& offers) {
  static WgmmaOperands operands;  // one launch at a time; too large for a fiber's stack
  if (product.form.a_in_registers) {
    const uint32_t* registers[kWarpgroup];
    for (int i = 0; i < kWarpgroup; ++i) registers[i] = offers[i].a_registers;
    decode_a(registers, product.form, operands);
  } else {
    decode_a(shared_base(), product.a, product.form, operands);
  }
  decode_b(shared_base(), product.b, product.form, operands);
  multiply(operands, product.form.columns, product.sums->values.data());
}

void issue(Warpgroup& group, const WgmmaForm& form, Site site) {
  const WgmmaOffer& offer = group.offers[0];
  if (!group.fenced) {
    fail_of_wgmma("a product without a wgmma_fence before it", Word::kWgmma, site,
                  "say wgmma_fence before the first product, and after threads have touched its registers");
  }
  WgmmaProduct& product = group.products.emplace_back();
  product.form = form;
  product.site = site;
  product.group = group.group;
  product.b = tile_of(offer.b_tile);
  product.b_hash = hash_of(shared_base(), product.b, form.transpose_b, form.columns);
  if (form.a_in_registers) {
    product.a_values.resize(kWarpgroup);
    for (int i = 0; i < kWarpgroup; ++i) {
      product.a_places[i] = group.offers[i].a_registers;
      std::memcpy(product.a_values[i].data(), product.a_places[i], sizeof product.a_values[i]);
    }
  } else {
    product.a = tile_of(offer.a_tile);
    product.a_hash = hash_of(shared_base(), product.a, form.transpose_a, kWgmmaRows);
  }
  product.sums = sums_of(group, form, site);
  WgmmaSums& sums = *product.sums;
  if (!offer.add) {
    sums.values.assign(sums.values.size(), 0.0f);
  } else if (sums.under_way == 0) {
    gather(sums);
  }
  compute(product, group.offers);
  ++sums.under_way;
  sums.site = site;
  poison(sums);
}

void check_sums(const WgmmaSums& sums, Site issued, Site site) {
  for (const float* const place : sums.places) {
    const unsigned char* const bytes = reinterpret_cast<const unsigned char*>(place);
    for (size_t i = 0; i < bytes_of_sums(sums); ++i) {
      if (bytes[i] == 0xff) continue;
      Fault fault;
      fault.rule = "the sums of a product were changed before it was waited for";
      fault.steps.push_back({"the product was issued", where_of(issued)});
      fault.steps.push_back({"and is waited for", where_of(site)});
      fault.advice = "touch sums only after the wgmma_wait that covers the product's group";
      fail(std::move(fault));
    }
  }
}

void check_operands(const WgmmaProduct& product, Site site) {
  const WgmmaForm& form = product.form;
  const bool b_same = hash_of(shared_base(), product.b, form.transpose_b, form.columns) == product.b_hash;
  bool a_same = true;
  if (form.a_in_registers) {
    for (int i = 0; i < kWarpgroup; ++i) {
      a_same = a_same && std::memcmp(product.a_values[i].data(), product.a_places[i], 4 * sizeof(uint32_t)) == 0;
    }
  } else {
    a_same = hash_of(shared_base(), product.a, form.transpose_a, kWgmmaRows) == product.a_hash;
  }
  if (a_same && b_same) return;
  Fault fault;
  fault.rule = std::string(a_same ? "B" : form.a_in_registers ? "A in registers" : "A") +
               " of a product was changed before the product was waited for";
  fault.steps.push_back({"the product was issued", where_of(product.site)});
  fault.steps.push_back({"and is waited for", where_of(site)});
  fault.advice = "release a stage, or write to registers, only after the wgmma_wait that covers the product's group";
  fail(std::move(fault));
}

void end_products(Warpgroup& group, int pending, Site site) {
  const uint64_t kept = static_cast<uint64_t>(pending);
  const uint64_t ends = group.group > kept ? group.group - kept : 0;  // groups before this one
  while (!group.products.empty() && group.products.front().group < ends) {
    const WgmmaProduct& product = group.products.front();
    check_operands(product, site);
    WgmmaSums& sums = *product.sums;
    check_sums(sums, product.site, site);
    if (--sums.under_way == 0) {
      scatter(sums);
      group.sums.erase(product.sums);
    }
    group.products.pop_front();
  }
}

void check_same(const Warpgroup& group, const WgmmaForm& form, const WgmmaOffer& offer, Site site) {
  const WgmmaOffer& first = group.offers[static_cast<size_t>(group.arrived.front() % kWarpgroup)];
  const bool same = group.form == form && first.b_tile == offer.b_tile && first.add == offer.add &&
                    (form.a_in_registers || first.a_tile == offer.a_tile);
  if (same) return;
  fail_of_difference(group, "threads of one warpgroup say different products", Word::kWgmma, site,
                     "all 128 threads must hand over the same tiles and the same `add`");
}

}  // namespace

uint64_t wgmma_tile(const void* shared, int leading, int stride, WgmmaSwizzle swizzle, Site site) {
  if (leading < 0 || stride < 0 || leading % kPiece != 0 || stride % kPiece != 0 ||
      leading >= static_cast<int>(kDescriptorBytes) || stride >= static_cast<int>(kDescriptorBytes)) {
    fail_of_wgmma("a descriptor with leading " + std::to_string(leading) + " and stride " + std::to_string(stride),
                  Word::kWgmmaTile, site, "both are multiples of 16 bytes in [0, 2^18)");
  }
  const uint32_t start = shared_address(shared, site);
  if (start % kPiece != 0 || start >= kDescriptorBytes) {
    fail_of_wgmma("a descriptor of a tile that is " + std::to_string(start % kPiece) + " past a multiple of 16 bytes",
                  Word::kWgmmaTile, site, "tiles stand on 16 bytes of shared memory");
  }
  return descriptor_of({start, static_cast<uint32_t>(leading), static_cast<uint32_t>(stride), swizzle});
}

uint64_t wgmma_advance(uint64_t tile, int bytes, Site site) {
  if (bytes < 0 || bytes % static_cast<int>(kPiece) != 0) {
    fail_of_wgmma("a descriptor is moved on by " + std::to_string(bytes) + " bytes", Word::kWgmmaTile, site,
                  "multiples of 16 from 0");
  }
  return tile + (static_cast<uint64_t>(bytes) >> 4);
}

void wgmma_fence(Site site) {
  if (say(Word::kWgmmaFence, site)) return;
  Warpgroup& group = warpgroup_of(*turn.thread->block, speaker().thread);
  if (!arrive(group, Word::kWgmmaFence, site)) return;
  group.fenced = true;
  wake(group);
}

void wgmma_commit(Site site) {
  if (say(Word::kWgmmaCommit, site)) return;
  Warpgroup& group = warpgroup_of(*turn.thread->block, speaker().thread);
  if (!arrive(group, Word::kWgmmaCommit, site)) return;
  ++group.group;
  wake(group);
}

void wgmma_wait(int pending, Site site) {
  if (say(Word::kWgmmaWait, site)) return;
  Warpgroup& group = warpgroup_of(*turn.thread->block, speaker().thread);
  if (!arrive(group, Word::kWgmmaWait, site)) return;
  end_products(group, pending, site);
  wake(group);
}

void wgmma(const WgmmaForm& form, const WgmmaOffer& offer, Site site) {
  if (say(Word::kWgmma, site)) return;
  Warpgroup& group = warpgroup_of(*turn.thread->block, speaker().thread);
  if (group.arrived.empty()) {
    group.form = form;
  } else if (group.word == Word::kWgmma) {
    check_same(group, form, offer, site);
  }
  group.offers[static_cast<size_t>(speaker().thread % kWarpgroup)] = offer;
  if (!arrive(group, Word::kWgmma, site)) return;
  issue(group, form, site);
  wake(group);
}

}  // namespace igf::simt
