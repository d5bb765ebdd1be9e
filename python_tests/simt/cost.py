"""`python -m python_tests.simt.cost`: what the emulator's own work costs on this machine, in nanoseconds."""

from __future__ import annotations

import ctypes
import sys

from instructgpt_fast.simt import _library

SCHEDULES = {"forward": 0, "random": 2, "preempting": 3}
WORKS = [
    "nothing", "write to the own stack", "plain read of a read-only buffer", "plain write to shared memory",
    "plain write to a buffer", "load of 16 bytes, read-only", "store of 16 bytes", "block_barrier", "shuffle",
    "warp_barrier",
]


def main() -> None:
    """Prints a table; the time of one thread's turn of the loop ("nothing") is part of every other number."""
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


if __name__ == "__main__":
    main()
