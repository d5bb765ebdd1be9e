// A warpgroup's products: issued, under way, ended. wgmma_words.h says the rules.
#include <cstring>

#include "simt/fault.h"
#include "simt/proxies.h"
#include "simt/shadow.h"
#include "simt/wgmma_state.h"

namespace igf::simt {
namespace {

const unsigned char* shared_base() { return reinterpret_cast<const unsigned char*>(turn.shared_low); }

uintptr_t address_of(const void* place) { return reinterpret_cast<uintptr_t>(place); }

bool overlap(uintptr_t a, size_t a_bytes, uintptr_t b, size_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

[[noreturn]] void fail_of_issue(const Warpgroup& group, int thread, const std::string& rule, Site site,
                                const std::string& advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back({name_of(thread_of(*turn.thread->block, group.first + thread).who) + " says wgmma",
                         where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

// What the thread hands over, registers that the product may take: its own, touched last before a fence.
void check_registers(const Warpgroup& group, int thread, const char* name, const void* place, size_t bytes, Site site) {
  const RegisterWatch& watch = group.watches[static_cast<size_t>(thread)];
  if (!watch.holds(address_of(place), bytes)) {
    fail_of_issue(group, thread, std::string(name) + " of a product not in the thread's own registers", site,
                  "hand over a local array");
  }
  const int touched = watch.touched(address_of(place), bytes);
  if (touched < 0) return;
  fail_of_issue(group, thread,
                std::string(name) + " of a product touched after the last wgmma_fence: element " +
                    std::to_string(touched / 4),
                site, "say wgmma_fence between what the thread does to these registers and the product");
}

// The sums under way that these are, or the end; fails where some are, or part of them.
std::list<WgmmaSums>::iterator find_sums(Warpgroup& group, const WgmmaForm& form, Site site) {
  const size_t bytes = static_cast<size_t>(form.columns) / 2 * sizeof(float);
  for (auto sums = group.sums.begin(); sums != group.sums.end(); ++sums) {
    int same = 0;
    int touching = -1;
    for (int i = 0; i < kWarpgroup; ++i) {
      const WgmmaOffer& offer = group.offers[static_cast<size_t>(i)];
      const uintptr_t theirs = address_of(sums->places[static_cast<size_t>(i)]);
      same += theirs == address_of(offer.sums) ? 1 : 0;
      if (overlap(theirs, sums->bytes(), address_of(offer.sums), bytes)) touching = i;
      if (form.a_in_registers && overlap(theirs, sums->bytes(), address_of(offer.a_registers), kBytesOfA)) {
        fail_of_issue(group, i, "A in registers is the sums of a product under way", site,
                      "wait for that product first");
      }
    }
    if (same == kWarpgroup && sums->columns == form.columns) return sums;
    if (touching >= 0) {
      fail_of_issue(group, touching, "a product takes sums of another one of another shape, or part of them, under way",
                    site, "wait for the other one first");
    }
  }
  return group.sums.end();
}

// The same for new sums that A in registers of a product under way stands in.
void check_against_a(const Warpgroup& group, size_t bytes, Site site) {
  for (const WgmmaProduct& product : group.products) {
    for (int i = 0; product.form.a_in_registers && i < kWarpgroup; ++i) {
      const size_t at = static_cast<size_t>(i);
      if (overlap(address_of(product.a_places[at]), kBytesOfA, address_of(group.offers[at].sums), bytes)) {
        fail_of_issue(group, i, "sums where A in registers of a product under way stands", site,
                      "wait for that product first");
      }
    }
  }
}

std::list<WgmmaSums>::iterator take_sums(Warpgroup& group, const WgmmaForm& form, bool add, Site site) {
  const auto known = find_sums(group, form, site);
  if (known != group.sums.end()) {
    if (!add) known->values.assign(known->values.size(), 0.0f);
    return known;
  }
  WgmmaSums sums;
  sums.columns = form.columns;
  sums.values.resize(static_cast<size_t>(kWgmmaRows) * static_cast<size_t>(form.columns));
  check_against_a(group, sums.bytes(), site);
  for (int i = 0; i < kWarpgroup; ++i) {
    const size_t at = static_cast<size_t>(i);
    sums.places[at] = group.offers[at].sums;
    check_registers(group, i, "sums", sums.places[at], sums.bytes(), site);
    group.watches[at].take(address_of(sums.places[at]), sums.bytes());
    for (int r = 0; add && r < form.columns / 2; ++r) {
      const Place place = place_in_sums(i, r);
      sums.values[static_cast<size_t>(place.row * form.columns + place.column)] = sums.places[at][r];
    }
    std::memset(sums.places[at], 0xff, sums.bytes());
  }
  group.sums.push_front(std::move(sums));
  return group.sums.begin();
}

void give_out(Warpgroup& group, const WgmmaSums& sums) {
  for (int i = 0; i < kWarpgroup; ++i) {
    const size_t at = static_cast<size_t>(i);
    group.watches[at].give_back(address_of(sums.places[at]), sums.bytes());
    for (int r = 0; r < sums.columns / 2; ++r) {
      const Place place = place_in_sums(i, r);
      sums.places[at][r] = sums.values[static_cast<size_t>(place.row * sums.columns + place.column)];
    }
  }
}

// What all threads of the warpgroup have seen, each also of itself.
Seen seen_by_all(const Warpgroup& group) {
  Block& block = *turn.thread->block;
  Seen all = thread_of(block, group.first).clock.seen;
  const bool same = [&] {
    for (int i = 1; i < kWarpgroup; ++i) {
      if (thread_of(block, group.first + i).clock.seen != all) return false;
    }
    return true;
  }();
  for (int i = 0; !same && i < kWarpgroup; ++i) {
    const Thread& thread = thread_of(block, group.first + i);
    const Seen own = joined(thread.clock.seen, only_lane(block.number, thread.who.thread, thread.clock.now));
    all = i == 0 ? own : common(all, own);
  }
  return all;
}

int number_of(const Warpgroup& group) { return group.first / kWarpgroup; }

// The product's reads of shared memory: after what all threads have seen, before what follows a wait for it. It is the
// lane of the warpgroup that reads: any thread's wait ends the product for all, as groups are the warpgroup's.
class Reading {
 public:
  Reading(Warpgroup& group, Site site)
      : where_(where_of(site)),
        turn_({turn.thread->block, speaker(), Word::kWgmma, site, seen_by_all(group), turn.thread->block->base},
              product_lane(number_of(group)), kAsyncClock + ++group.issued) {}

  void read(const WgmmaTileChecked& tile) const {
    for (const WgmmaTileChecked::Run& run : tile.runs) {
      touch_async(turn.shared_low + run.begin, run.bytes, Touch::kRead, where_);
    }
  }

 private:
  Where where_;
  AsyncTurn turn_;
};

// From here on all threads of the warpgroup are after the product that was issued as the count-th.
void see_product(const Warpgroup& group, uint32_t count) {
  Block& block = *turn.thread->block;
  const Seen product = only_lane(block.number, product_lane(number_of(group)), kAsyncClock + count);
  Seen before;
  Seen after = product;
  for (int i = 0; i < kWarpgroup; ++i) {
    Thread& thread = thread_of(block, group.first + i);
    if (thread.clock.seen != before) {
      before = thread.clock.seen;
      after = joined(before, product);
    }
    thread.clock.seen = after;
  }
}

// Reads the operands as the product does, then multiplies.
void multiply_into(WgmmaSums& sums, Warpgroup& group, const WgmmaForm& form, Site site) {
  static WgmmaOperands operands;  // one launch at a time; too large for a fiber's stack
  const WgmmaOffer& offer = group.offers[0];
  const WgmmaTileChecked& b = checked_tile(group, 'B', offer.b_tile, form.transpose_b, form.columns, site);
  const WgmmaTileChecked* const a =
      form.a_in_registers ? nullptr : &checked_tile(group, 'A', offer.a_tile, form.transpose_a, kWgmmaRows, site);
  {
    const Reading reading(group, site);
    if (a != nullptr) reading.read(*a);
    reading.read(b);
  }
  if (a != nullptr) {
    decode_a(shared_base(), a->pieces, form, operands);
  } else {
    const uint32_t* registers[kWarpgroup];
    for (int i = 0; i < kWarpgroup; ++i) registers[i] = group.offers[static_cast<size_t>(i)].a_registers;
    decode_a(registers, form, operands);
  }
  decode_b(shared_base(), b.pieces, form, operands);
  multiply(operands, form.columns, sums.values.data());
}

// Of whose registers the address is: the product and what it is of it.
const WgmmaProduct* product_at(const Warpgroup& group, size_t thread, uintptr_t address, size_t bytes,
                               std::string& what) {
  for (auto product = group.products.rbegin(); product != group.products.rend(); ++product) {
    const WgmmaSums& sums = *product->sums;
    const uintptr_t place = address_of(sums.places[thread]);
    if (overlap(place, sums.bytes(), address, bytes)) {
      what = "sums[" + std::to_string(address < place ? 0 : (address - place) / sizeof(float)) + "]";
      return &*product;
    }
    const uintptr_t a = product->form.a_in_registers ? address_of(product->a_places[thread]) : 0;
    if (a != 0 && overlap(a, kBytesOfA, address, bytes)) {
      what = "a[" + std::to_string(address < a ? 0 : (address - a) / sizeof(uint32_t)) + "]";
      return &*product;
    }
  }
  return nullptr;
}

}  // namespace

void issue_product(Warpgroup& group, const WgmmaForm& form, Site site) {
  const WgmmaOffer& offer = group.offers[0];
  if (!group.fenced) {
    fail_of_wgmma("a product without a wgmma_fence before it", Word::kWgmma, site,
                  "say wgmma_fence before the first product, and after threads have touched registers of the next");
  }
  WgmmaProduct product;
  product.form = form;
  product.site = site;
  product.group = group.group;
  product.sums = take_sums(group, form, offer.add, site);
  for (int i = 0; form.a_in_registers && i < kWarpgroup; ++i) {
    const size_t at = static_cast<size_t>(i);
    product.a_places[at] = group.offers[at].a_registers;
    check_registers(group, i, "A in registers", product.a_places[at], kBytesOfA, site);
    group.watches[at].take(address_of(product.a_places[at]), kBytesOfA);
  }
  multiply_into(*product.sums, group, form, site);
  ++product.sums->under_way;
  group.products.push_back(std::move(product));
}

void end_products(Warpgroup& group, int pending) {
  const uint64_t kept = static_cast<uint64_t>(pending);
  const uint64_t ends = group.group > kept ? group.group - kept : 0;  // groups before this one
  bool registers = false;
  bool ended = false;
  while (!group.products.empty() && group.products.front().group < ends) {
    const WgmmaProduct& product = group.products.front();
    for (int i = 0; product.form.a_in_registers && i < kWarpgroup; ++i) {
      const size_t at = static_cast<size_t>(i);
      group.watches[at].give_back(address_of(product.a_places[at]), kBytesOfA);
    }
    registers = registers || product.form.a_in_registers;
    if (--product.sums->under_way == 0) {
      give_out(group, *product.sums);
      group.sums.erase(product.sums);
    }
    group.products.pop_front();
    ended = true;
  }
  if (ended) see_product(group, group.issued - static_cast<uint32_t>(group.products.size()));
  // Several products may share A in registers: what others still have is theirs.
  for (const WgmmaProduct& product : group.products) {
    for (int i = 0; registers && product.form.a_in_registers && i < kWarpgroup; ++i) {
      const size_t at = static_cast<size_t>(i);
      group.watches[at].take(address_of(product.a_places[at]), kBytesOfA);
    }
  }
}

void fail_of_registers_under_way(uintptr_t address, size_t bytes, bool writes, Where where) {
  const size_t number = static_cast<size_t>(speaker().thread);
  const Warpgroup& group = turn.thread->block->warpgroups->of[number / kWarpgroup];
  std::string what = "registers";
  const WgmmaProduct* const product = product_at(group, number % kWarpgroup, address, bytes, what);
  Fault fault;
  fault.rule = "registers of a product are touched before it was waited for";
  fault.steps.push_back({name_of(speaker()) + (writes ? " writes " : " reads ") + what, where});
  if (product != nullptr) fault.steps.push_back({"the product was issued", where_of(product->site)});
  const bool committed = product != nullptr && product->group < group.group;
  fault.advice = std::string(committed ? "" : "say wgmma_commit after the product; ") +
                 "its sums and its A in registers are the thread's again after the wgmma_wait that covers its group";
  fail(std::move(fault));
}

}  // namespace igf::simt
