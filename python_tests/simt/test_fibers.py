"""Fibers by themselves (csrc/simt/fiber.cpp): the switch in assembly, and the one by ucontext for other processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from python_tests.simt.probe import compiled

PROBE = """
#include "simt/fiber.cpp"

#include <cmath>
#include <vector>

namespace {

using namespace igf::simt;

constexpr int kFibers = 100;
Context outside, contexts[kFibers];
Stacks stacks;
int current;
std::vector<int> order;
double sums[kFibers];

// Keeps integers and floating-point numbers of its own over its turns.
void entry() {
  fiber_started();
  const int me = current;
  long count = me;
  double sum = std::sqrt(me + 0.25);
  for (int turn = 0; turn < 3; ++turn) {
    order.push_back(me);
    count += turn;
    sum += 1.0 / (1 + me + turn);
    const int next = me + 1;
    current = next % kFibers;
    if (next < kFibers || turn < 2) switch_context(contexts[me], contexts[current]);
  }
  sums[me] = sum + static_cast<double>(count);
  switch_context(contexts[me], outside);
}

}  // namespace

extern "C" int play() {
  outside = this_os_thread();
  stacks.provide(3);
  stacks.provide(kFibers);
  for (int i = 0; i < kFibers; ++i) prepare(contexts[i], stacks.low(i), Stacks::kBytes, i % 64, &entry);
  current = 0;
  switch_context(outside, contexts[0]);
  if (order.size() != 3 * kFibers) return 1;
  for (int i = 0; i < 3 * kFibers; ++i) {
    if (order[i] != i % kFibers) return 2;
  }
  const int last = kFibers - 1;
  const double sum = std::sqrt(last + 0.25) + 1.0 / (1 + last) + 1.0 / (2 + last) + 1.0 / (3 + last);
  if (sums[last] != sum + last + 3) return 3;
  size_t index = 0;
  char here = 0;
  if (stacks.holds(&here, &index)) return 4;
  return stacks.holds(stacks.low(42) + 100, &index) && index == 42 ? 0 : 5;
}
"""


@pytest.mark.parametrize("switch", ["assembly", "ucontext"])
def test_fibers_take_turns_and_keep_what_is_theirs(tmp_path: Path, switch: str) -> None:
    chosen = "#define IGF_SIMT_UCONTEXT\n" if switch == "ucontext" else ""
    assert compiled(tmp_path, chosen + PROBE).play() == 0
