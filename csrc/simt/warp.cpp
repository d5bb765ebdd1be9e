// Words that the lanes of a warp say together: barrier, shuffles, votes, exchange.
#include "simt/fault.h"
#include "simt/sync.h"

namespace igf::simt {
namespace {

constexpr int kOwn = -1;  // a shuffle that leaves the lane its own value

[[noreturn]] void fail_in_warp(const char* rule, Word word, uint32_t lanes, Site site, const std::string& more,
                               const char* advice) {
  Fault fault;
  fault.rule = rule;
  fault.steps.push_back(
      {name_of(speaker()) + " says " + name_of(word) + " for " + lanes_of(lanes) + more, where_of(site)});
  fault.advice = advice;
  fail(std::move(fault));
}

// Lanes of the block's warp that exist: the last warp of a block may be short.
uint32_t existing_lanes(int warp) {
  const int threads = current_launch->threads - warp * kWarpLanes;
  return threads >= kWarpLanes ? ~0u : (1u << threads) - 1u;
}

void check_lanes(const Thread& thread, Word word, uint32_t lanes, Site site) {
  if ((lanes >> thread.who.lane & 1u) == 0) {
    fail_in_warp("a lane is not among the lanes it names", word, lanes, site, "",
                 "a lane may only meet lanes of its own mask");
  }
  if ((lanes & ~existing_lanes(thread.who.warp)) != 0) {
    fail_in_warp("lanes that the block does not have", word, lanes, site, "", "name only lanes that have a thread");
  }
  const uint32_t ended = thread.block->warps[thread.who.warp].ended & lanes;
  if (ended != 0) {
    fail_in_warp("missing lanes: some have left the kernel", word, lanes, site,
                 ", but " + lanes_of(ended) + " returned",
                 "name only lanes that come here");
  }
}

// The lanes that the thread names wait with the same mask for something else.
[[noreturn]] void fail_of_meeting(const Meeting& meeting, Word word, Site site) {
  Fault fault;
  fault.rule = "different words meet in one warp";
  fault.steps.push_back(
      {name_of(speaker()) + " says " + name_of(word) + " for " + lanes_of(meeting.lanes), where_of(site)});
  fault.steps.push_back({lanes_of(meeting.arrived) + " came with " + name_of(meeting.word),
                         where_of(meeting.sites[__builtin_ctz(meeting.arrived)])});
  fault.advice = "all lanes of a mask must say the same word";
  fail(std::move(fault));
}

// The meeting that the thread joins, or a new one. Others may be under way that want the same lanes with another mask:
// those lanes may come there later, or before they come here. If they never do, nobody can go on: that is noticed.
Meeting& meeting_of(const Thread& thread, Word word, uint32_t lanes, Site site) {
  Meeting* unused = nullptr;
  std::vector<Meeting>& meetings = thread.block->warps[thread.who.warp].meetings;
  for (Meeting& meeting : meetings) {
    if (meeting.lanes == 0) {
      unused = &meeting;
      continue;
    }
    if (meeting.lanes != lanes) continue;
    if (meeting.word != word) fail_of_meeting(meeting, word, site);
    return meeting;
  }
  if (unused == nullptr) unused = &meetings.emplace_back();
  unused->lanes = lanes;
  unused->arrived = 0;
  unused->word = word;
  return *unused;
}

void wake_others(const Thread& last, const Meeting& meeting) {
  const int first = last.who.warp * kWarpLanes;
  for (uint32_t rest = meeting.lanes & ~(1u << last.who.lane); rest != 0; rest &= rest - 1) {
    make_ready(thread_of(*last.block, first + __builtin_ctz(rest)));
  }
  current_launch->waits_in_vain = 0;
}

// Meets the lanes; answer(meeting, lane) is computed for every lane by the one that comes last.
template <typename Answer>
uint64_t meet(Word word, uint64_t value, int source, uint32_t lanes, Site site, Answer answer) {
  Thread& thread = *turn.thread;
  check_lanes(thread, word, lanes, site);
  Meeting& meeting = meeting_of(thread, word, lanes, site);
  const int lane = thread.who.lane;
  meeting.values[lane] = value;
  meeting.sources[lane] = source;
  meeting.sites[lane] = site;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != lanes) {
    thread.waits_lanes = lanes;
    wait_here(word, site);
    return thread.answer;
  }
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const int each = __builtin_ctz(rest);
    thread_of(*thread.block, thread.who.warp * kWarpLanes + each).answer = answer(meeting, each);
  }
  wake_others(thread, meeting);
  meeting.lanes = 0;
  return thread.answer;
}

int source_of(Word word, int lane, int operand) {
  switch (word) {
    case Word::kShuffleXor: return (lane ^ operand) & (kWarpLanes - 1);
    case Word::kShuffleUp: return lane - operand < 0 ? kOwn : lane - operand;
    case Word::kShuffleDown: return lane + operand >= kWarpLanes ? kOwn : lane + operand;
    default: return operand & (kWarpLanes - 1);
  }
}

}  // namespace

void warp_barrier(uint32_t lanes, Site site) {
  if (say(Word::kWarpBarrier, site)) return;
  const Thread& thread = *turn.thread;
  const int first = thread.who.warp * kWarpLanes;
  bool ordered = false;
  meet(Word::kWarpBarrier, 0, kOwn, lanes, site, [&](const Meeting& meeting, int) {
    if (!ordered) {
      int members[kWarpLanes];
      int count = 0;
      for (uint32_t rest = meeting.lanes; rest != 0; rest &= rest - 1) members[count++] = first + __builtin_ctz(rest);
      order_threads(*thread.block, members, count);
      ordered = true;
    }
    return uint64_t{0};
  });
  refresh_clock();
}

uint64_t shuffle(Word word, uint64_t bits, int operand, uint32_t lanes, Site site) {
  if (say(word, site)) return bits;
  const int lane = speaker().lane;
  if ((word == Word::kShuffleUp || word == Word::kShuffleDown || word == Word::kShuffleXor) &&
      (operand < 0 || operand >= kWarpLanes)) {
    fail_in_warp("a shuffle by more lanes than a warp has", word, lanes, site, " by " + std::to_string(operand),
                 "0 to 31");
  }
  int source = source_of(word, lane, operand);
  if (source != kOwn && mutator != nullptr) source = mutator->source_lane(speaker(), word, site, source, lanes);
  if (source != kOwn && (lanes >> source & 1u) == 0) {
    fail_in_warp("a shuffle takes a value from a lane outside its mask", word, lanes, site,
                 " and reads lane " + std::to_string(source),
                 "the value of a lane that does not take part is undefined");
  }
  return meet(word, bits, source, lanes, site, [](const Meeting& meeting, int each) {
    const int from = meeting.sources[each];
    return meeting.values[from == kOwn ? each : from];
  });
}

uint32_t vote(Word word, uint64_t value, uint32_t lanes, Site site) {
  if (say(word, site)) return value != 0 ? 1u << speaker().lane : 0u;
  const uint64_t answer = meet(word, value, kOwn, lanes, site, [](const Meeting& meeting, int each) {
    uint64_t found = 0;
    for (uint32_t rest = meeting.lanes; rest != 0; rest &= rest - 1) {
      const int other = __builtin_ctz(rest);
      const bool yes = meeting.word == Word::kMatchLanes ? meeting.values[other] == meeting.values[each]
                                                         : meeting.values[other] != 0;
      if (yes) found |= uint64_t{1} << other;
    }
    return found;
  });
  return static_cast<uint32_t>(answer);
}

void warp_exchange(Word word, uint64_t mine, LaneValues& all, Site site) {
  // Each lane's answer is where its own table is filled: lanes hand over their values and their tables' addresses.
  struct Offer {
    uint64_t value;
    LaneValues* table;
  };
  Offer offer{mine, &all};
  meet(word, reinterpret_cast<uint64_t>(&offer), kOwn, ~0u, site, [](const Meeting& meeting, int each) {
    LaneValues& table = *reinterpret_cast<Offer*>(meeting.values[each])->table;
    for (int lane = 0; lane < kWarpLanes; ++lane) {
      table.of[lane] = reinterpret_cast<Offer*>(meeting.values[lane])->value;
    }
    return uint64_t{0};
  });
}

void check_meetings_at_end(Thread& thread) {
  for (const Meeting& meeting : thread.block->warps[thread.who.warp].meetings) {
    if ((meeting.lanes >> thread.who.lane & 1u) == 0) continue;
    const int other = __builtin_ctz(meeting.arrived);
    Fault fault;
    fault.rule = "missing lanes: a lane has left the kernel while others wait for it";
    fault.steps.push_back({name_of(thread.who) + " returned; " + lanes_of(meeting.arrived) + " wait with " +
                               name_of(meeting.word) + " for " + lanes_of(meeting.lanes),
                           where_of(meeting.sites[other])});
    fault.advice = "name only lanes that come there";
    fail(std::move(fault));
  }
}

}  // namespace igf::simt
