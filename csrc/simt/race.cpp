#include "simt/race.h"

#include "simt/fault.h"
#include "simt/proxies.h"

namespace igf::simt {
namespace {

// Of a lane that no thread has: as if it were one, behind the others.
Who maker_of(const Mark& mark) {
  const int64_t lanes = current_launch->rows * kWarpLanes;
  const int64_t block = (mark.thread - 1) / lanes;
  const int lane = static_cast<int>((mark.thread - 1) % lanes);
  return {block % current_launch->facts.blocks_x, block / current_launch->facts.blocks_x, block, lane,
          lane / kWarpLanes, lane % kWarpLanes};
}

}  // namespace

std::string name_of_mark(const Mark& mark) {
  const Who who = maker_of(mark);
  if (!is_async(mark.clock)) return name_of(who);
  return name_of_lane(who.thread) + " of block " + std::to_string(who.block);
}

void fail_of_race(const Race& race, uint32_t bytes, Touch kind, Where where,
                               const std::string& place) {
  const auto verb = [](bool write, bool atomic) {
    return atomic ? " changes it by an atomic" : write ? " writes it" : " reads it";
  };
  const Who other = maker_of(race.mark);
  const bool across = other.block != speaker().block;
  Fault fault;
  fault.rule = std::string("race between ") + (across ? "blocks" : "threads") + " on " + place + ", " +
               std::to_string(bytes) + " bytes";
  const bool by_atomic = (race.mark.where & kAtomicMark) != 0;
  fault.steps.push_back({name_of_mark(race.mark) + verb(race.is_write, by_atomic), race.mark.where});
  fault.steps.push_back({name_of_mark({turn.number, turn.clock, 0}) + verb(kind == Touch::kWrite, kind == Touch::kAtomic),
                         where});
  fault.advice = !across && (is_async(race.mark.clock) || is_async(turn.clock))
                 ? "nothing orders the two: a copy, or product, comes after what precedes its word, and is over for those "
                   "who have waited for it (at its mbarrier, or for its group) and for those ordered after them"
                 : across ? "nothing orders the two: blocks need device_fence and an atomic on both sides"
                 : other.warp == speaker().warp
                     ? "nothing orders the two: lanes need a warp_barrier between them (shuffles do not order memory), "
                       "or a block_barrier where other warps touch it too"
                     : "nothing orders the two: a block_barrier is missing between them";
  fail(std::move(fault));
}

}  // namespace igf::simt
