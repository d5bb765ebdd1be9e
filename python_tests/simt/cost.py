"""What the emulator costs on this machine: nanoseconds of its own work, and cases of the ops a second.

    python -m python_tests.simt.cost            # a table: each kind of work under each schedule
    python -m python_tests.simt.cost --cases    # every case of every op's suite, as `make test` runs it
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time

import torch

from instructgpt_fast import simt
from instructgpt_fast.simt import _library
from python_tests.kernels.address_lane import suites
from python_tests.ops.suite import OpSuite

SCHEDULES = {"forward": 0, "random": 2, "preempting": 3}
WORKS = [
    "nothing", "write to the own stack", "plain read of a read-only buffer", "plain write to shared memory",
    "plain write to a buffer", "load of 16 bytes, read-only", "store of 16 bytes", "block_barrier", "shuffle",
    "warp_barrier",
]


def works() -> None:
    """The time of one thread's turn of the loop ("nothing") is part of every other number."""
    emulator = _library.emulator()
    library = ctypes.CDLL(str(_library.LIBRARY))
    library.igf_simt_cost.restype = ctypes.c_double
    sys.stdout.write(f"{'ns for each time a thread does it':36}{''.join(f'{name:>12}' for name in SCHEDULES)}\n")
    for work in WORKS:
        sys.stdout.write(f"{work:36}")
        for number in SCHEDULES.values():
            emulator.begin({"schedule": number})
            sys.stdout.write(f"{library.igf_simt_cost(work.encode()):12.1f}")
        sys.stdout.write("\n")
    emulator.end()


def cases() -> None:
    """A case: one call in one dtype under four orders of threads, with gaps and with NaN, judged against float64."""
    total, total_seconds = 0, 0.0
    for suite in suites("ops", OpSuite):
        if not any(raw.startswith(suite.name) for raw in simt.operators()):
            continue
        drawn = [(case, dtype) for case in suite.cases for dtype in suite.dtypes]
        begin = time.perf_counter()
        for case, dtype in drawn:
            suite().test_on_the_emulator(case, dtype)
        seconds = time.perf_counter() - begin
        sys.stdout.write(f"{suite.__name__:28}{len(drawn):5} cases{seconds:8.2f} s\n")
        total, total_seconds = total + len(drawn), total_seconds + seconds
    sys.stdout.write(f"{'all':28}{total:5} cases{total_seconds:8.2f} s: {total / total_seconds:.1f} cases a second, in "
                     f"one process with {torch.get_num_threads()} threads of torch\n")


def main() -> None:
    """Prints one of the two."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m python_tests.simt.cost", description=about)
    parser.add_argument("--cases", action="store_true", help="every case of every op's suite, on the emulator")
    cases() if parser.parse_args().cases else works()


if __name__ == "__main__":
    main()
