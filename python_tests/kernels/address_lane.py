"""Runs every case of every op and kernel once, by kernels that were built with AddressSanitizer and gcov's counters.

Started by test_addresses_and_coverage.py in a process of its own, because libasan has to be there before Python is:
`LD_PRELOAD=libasan.so python -m python_tests.kernels.address_lane LIBRARY`. Ends with status 0 when no access was bad.
With a number behind LIBRARY it runs instead a kernel that writes there in an array of six elements.
Not covered: whether results are right; the other tests have seen to that.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast import simt
from instructgpt_fast.simt import _library
from python_tests.kernels.suite import KernelSuite
from python_tests.ops.suite import New, OpSuite

TESTS = Path(__file__).resolve().parents[1]


def suites(folder: str, base: type[Any]) -> Iterator[type[Any]]:
    """Every class with cases that derives from `base` in the test files of a folder."""
    for path in sorted((TESTS / folder).glob("test_*.py")):
        module = importlib.import_module(f"python_tests.{folder}.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, base) and "cases" in vars(value):
                yield value


def run_all() -> int:
    """Runs the cases and returns how many there were."""
    count = 0
    for kernels in suites("kernels", KernelSuite):
        for case in kernels.cases:
            kernels().run_case(case)
            count += 1
    for suite in suites("ops", OpSuite):
        for case in suite.cases:
            for dtype in suite.dtypes:
                try:
                    suite().require_kernels()
                except pytest.skip.Exception:
                    break
                for architecture in suite.architectures:
                    if architecture == suite.architectures[0] or suite().runs_on(architecture, case, dtype):
                        with simt.executing(architecture=architecture):
                            suite().evaluate(suite().op, case.inputs(New(dtype)), case)
                        count += 1
    return count


if __name__ == "__main__":
    _library.LIBRARY = Path(sys.argv[1])
    if len(sys.argv) == 2:
        sys.stdout.write(f"{run_all()} cases\n")
    else:
        with simt.executing():
            sys.stdout.write(f"{torch.ops.instructgpt_fast.simt_local_array(torch.zeros(1), int(sys.argv[2]))}\n")
