// What is said about a kernel that broke a rule.
#pragma once

#include <string>
#include <vector>

#include "simt/core.h"

namespace igf::simt {

// One rule broken: `rule` in a few words, what led to it line by line, what to do about it.
struct Fault {
  struct Step {
    std::string text;
    Where where = 0;  // 0: none
  };
  std::string rule;
  std::vector<Step> steps;
  std::string advice;
};

// Records the fault and leaves the launch, which then throws std::runtime_error with the fault's text. On a fiber.
[[noreturn]] void fail(Fault&& fault);

// The text, with places turned into file and line. Called after all fibers were left.
std::string text_of(const Fault& fault, const LaunchFacts& launch);

// The fault of the launch that failed.
Fault& recorded_fault();

// "thread 33 (warp 1, lane 1) of block 2", with block and thread in two dimensions where they have two.
std::string name_of(const Who& who);
// "0-3, 7": numbers in rising order.
std::string ranges(const std::vector<int>& numbers);
// "lanes 0-15, 17" of a mask.
std::string lanes_of(uint32_t mask);

}  // namespace igf::simt
