#include "simt/fault.h"

namespace igf::simt {

void fail(Fault&& fault) {
  recorded_fault() = std::move(fault);
  abandon_launch();
}

Fault& recorded_fault() {
  static Fault fault;
  return fault;
}

std::string text_of(const Fault& fault, const LaunchFacts& launch) {
  std::string text = std::string(launch.kernel) + ": " + fault.rule;
  for (const Fault::Step& step : fault.steps) {
    text += "\n  " + step.text;
    if (step.where != 0) text += " at " + describe(step.where);
  }
  if (!fault.advice.empty()) text += "\n  " + fault.advice;
  return text;
}

std::string name_of(const Who& who) {
  const LaunchFacts& facts = current_launch->facts;
  std::string thread = std::to_string(who.thread);
  if (facts.threads_y > 1) {
    const int x = who.thread % facts.threads_x;
    const int y = who.thread / facts.threads_x;
    thread = "(" + std::to_string(x) + ", " + std::to_string(y) + ")";
  }
  std::string block = std::to_string(who.block);
  if (facts.blocks_y > 1) block = "(" + std::to_string(who.block_x) + ", " + std::to_string(who.block_y) + ")";
  return "thread " + thread + " (warp " + std::to_string(who.warp) + ", lane " + std::to_string(who.lane) +
         ") of block " + block;
}

std::string ranges(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    if (!text.empty()) text += ", ";
    text += std::to_string(numbers[i]);
    if (last > i) text += "-" + std::to_string(numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string lanes_of(uint32_t mask) {
  std::vector<int> lanes;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    if ((mask >> lane & 1u) != 0) lanes.push_back(lane);
  }
  if (lanes.empty()) return "no lane";
  return (lanes.size() == 1 ? "lane " : "lanes ") + ranges(lanes);
}

}  // namespace igf::simt
