"""Which accesses race: the emulator's answer for random programs, against vector clocks written the plain way.

A program is a list of steps; in each every thread does one thing or nothing. Barriers alone order its threads, so that
whether there is a race does not depend on the schedule.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from instructgpt_fast import simt
from instructgpt_fast.simt import _library

NOTHING, READ, WRITE, ATOMIC, BLOCK, WARP, SYNC, ARRIVE = range(8)
PROGRAMS = 100

Instruction = tuple[int, int]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if not simt.available():
        pytest.skip("the emulator is not in this build: INSTRUCTGPT_FAST_SIMT=OFF")
    _library.emulator()
    loaded = ctypes.CDLL(str(_library.LIBRARY))
    loaded.igf_simt_program.restype = ctypes.c_char_p
    return loaded


def random_program(draw: random.Random) -> list[list[Instruction]]:
    """Steps of one kind each; [step][thread]. Few cells, so that about half of the programs race."""
    threads = draw.choice([32, 64, 96])
    warps = threads // 32
    cells = draw.choice([8, 16, 32])
    program = []
    for _ in range(draw.randint(2, 12)):
        step: list[Instruction] = [(NOTHING, 0)] * threads
        kind = draw.choice(["access", "access", "block", "warp", "warp", "named"])
        if kind == "access":
            for thread in draw.sample(range(threads), draw.randint(1, 4)):
                step[thread] = (draw.choice([READ, READ, WRITE, ATOMIC]), draw.randrange(cells))
        elif kind == "block":
            step = [(BLOCK, 0)] * threads
        elif kind == "warp":
            warp = draw.randrange(warps)
            lanes = draw.choice([0xFFFFFFFF, 0x0000FFFF, 0xFFFF0000, draw.randrange(1, 1 << 32)])
            for lane in range(32):
                if lanes >> lane & 1:
                    step[32 * warp + lane] = (WARP, lanes)
        else:
            chosen = draw.sample(range(warps), draw.randint(1, warps))
            arrives = draw.sample(chosen, draw.randint(0, len(chosen) - 1))
            for warp in chosen:
                word = ARRIVE if warp in arrives else SYNC
                for thread in range(32 * warp, 32 * warp + 32):
                    step[thread] = (word, draw_number(len(program)) * 2048 + 32 * len(chosen))
        program.append(step)
    return program


def draw_number(step: int) -> int:
    """A barrier of the step's own, so that steps do not mix."""
    return 1 + step % 15


@dataclass
class Cell:
    """All accesses to one element so far: thread, its clock, what it did."""

    accesses: list[tuple[int, int, int]] = field(default_factory=list)


def has_race(program: list[list[Instruction]]) -> bool:
    """Runs step by step, each thread with a full vector clock."""
    threads = len(program[0])
    clocks = [[0] * threads for _ in range(threads)]
    for thread in range(threads):
        clocks[thread][thread] = 1
    cells: dict[int, Cell] = {}
    for step in program:
        for thread, (what, argument) in enumerate(step):
            if what not in (READ, WRITE, ATOMIC):
                continue
            cell = cells.setdefault(argument, Cell())
            for other, clock, did in cell.accesses:
                harmless = (what, did) in ((READ, READ), (ATOMIC, ATOMIC))
                if other != thread and not harmless and clocks[thread][other] < clock:
                    return True
            cell.accesses.append((thread, clocks[thread][thread], what))
        for givers, takers in meetings(step):
            seen = [max(values) for values in zip(*(clocks[thread] for thread in givers), strict=True)]
            for thread in takers:
                clocks[thread] = list(seen)
            for thread in givers:
                clocks[thread][thread] += 1
    return False


def meetings(step: list[Instruction]) -> Iterable[tuple[list[int], list[int]]]:
    """The one meeting of a step, if it has one: whose past is shared, and who learns of it."""
    givers = [thread for thread, (what, _) in enumerate(step) if what in (BLOCK, WARP, SYNC, ARRIVE)]
    takers = [thread for thread in givers if step[thread][0] != ARRIVE]
    return [(givers, takers)] if givers else []


def run(library: ctypes.CDLL, program: list[list[Instruction]], in_global_memory: bool) -> str:
    numbers = [number for step in program for instruction in step for number in instruction]
    table = (ctypes.c_uint32 * len(numbers))(*numbers)
    return str(library.igf_simt_program(table, len(program), len(program[0]), int(in_global_memory)).decode())


@pytest.fixture(scope="module")
def programs() -> list[tuple[list[list[Instruction]], bool]]:
    """Random programs, and whether they race."""
    draw = random.Random(5)
    drawn = [random_program(draw) for _ in range(PROGRAMS)]
    return [(program, has_race(program)) for program in drawn]


@pytest.mark.parametrize(("schedule", "seed"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_races_are_told_exactly(
    library: ctypes.CDLL, programs: list[tuple[list[list[Instruction]], bool]], schedule: int, seed: int
) -> None:
    _library.emulator().begin({"schedule": schedule, "seed": seed})
    try:
        for number, (program, expected) in enumerate(programs):
            message = run(library, program, in_global_memory=number % 2 == 1)
            assert bool(message) == expected, f"program {number}: {message or 'clean'}\n{listing(program)}"
            assert not message or "race between threads on " in message
    finally:
        _library.emulator().end()
    assert PROGRAMS // 5 < sum(expected for _, expected in programs) < 4 * PROGRAMS // 5


def listing(program: list[list[Instruction]]) -> str:
    """The accesses and meetings of a program, a step a line."""
    names = ["nothing", "read", "write", "atomic", "block", "warp", "sync", "arrive"]
    return "\n".join(
        " ".join(f"{thread}:{names[what]}({argument:x})" for thread, (what, argument) in enumerate(step) if what)
        for step in program
    )
