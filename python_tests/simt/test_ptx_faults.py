"""Asynchronous copies and matrix words: each rule is broken by a kernel that breaks only it, in csrc/simt/selftest."""

from __future__ import annotations

import re

import pytest
import torch

from instructgpt_fast import simt
from python_tests.house.tree import ROOT

SOURCE = "csrc/simt/selftest/ptx_faults_cuda.cu"
TEXT = (ROOT / SOURCE).read_text()
# The order of the table is the number of the kernel.
KERNELS = re.findall(r'^    \{"(\w+)", &\w+\},$', TEXT, re.MULTILINE)
EVERY_ORDER = [(schedule, copies) for schedule in ("forward", "reverse", "random", "preempting")
               for copies in ("lazy", "eager", "random")]

# What a kernel is told, and the line it must be told of (a piece of it).
UNDER_WAY = "bytes of an asynchronous copy are touched before it was waited for"
ROW = "ptx::ldmatrix<1>(registers, row(words));"
FAULTS = {
    "missing_wait": (UNDER_WAY, "store(a.output + thread_x(), words[thread_x()]);"),
    "wait_for_too_few": (UNDER_WAY, "store(a.output + thread_x(), words[32 + thread_x()]);"),
    "missing_commit": (UNDER_WAY, "store(a.output + thread_x(), words[thread_x()]);"),
    "missing_barrier_after_wait": ("race between threads on words", "words[31 - thread_x()]"),
    "write_under_way": (UNDER_WAY, "words[thread_x()] = 0;"),
    "copy_onto_copy": (UNDER_WAY, "ptx::cp_async<8>(words + 2 * thread_x(), a.input + 2 * thread_x());"),
    "stage_released_early": ("race between threads on words", "a.input + 32 + thread_x());"),
    "source_changes": ("the source of an asynchronous copy changed", "ptx::cp_async<4>(words + thread_x(), a.output"),
    "left_under_way": ("still under way at the end of the kernel", "ptx::cp_async<4>(words + thread_x(), a.input"),
    "source_out_of_bounds": ("out of bounds of global memory", "ptx::cp_async<16>(words"),
    "destination_out_of_bounds": ("out of bounds of shared memory", "ptx::cp_async<8>(words"),
    "source_misaligned": ("of 16 bytes, its source is 4 past a multiple of 16", "a.input + 4 * thread_x() + 1);"),
    "destination_misaligned": ("of 8 bytes, its destination is 4 past a multiple of 8", "ptx::cp_async<8>(words"),
    "too_many_source_bytes": ("of 4 bytes asks for 5 bytes of its source", "thread_x(), 5);"),
    "copy_to_global": ("does not go from global to shared memory", "ptx::cp_async<4>(a.output"),
    "row_misaligned": ("misaligned matrix row: 8 bytes past a multiple of 16", ROW),
    "row_in_global": ("a matrix row outside of shared memory", ROW),
    "row_out_of_bounds": ("out of bounds of shared memory", ROW),
    "rows_not_yet_written": ("race between threads on words", "ptx::ldmatrix<1>(registers, words"),
    "rows_under_way": (UNDER_WAY, "ptx::ldmatrix<1>(registers, words"),
    "half_a_warp_multiplies": ("missing lanes", "ptx::mma_m16n8k16<bfloat16>"),
    "two_types_multiply": ("different forms of one matrix word", "ptx::mma_m16n8k16<"),
    "loads_meet_a_product": ("different words meet in one warp", "warp_barrier();"),
}
RIGHT = {"copy_right", "zero_fill_at_the_end"}

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def run(kernel: str) -> torch.Tensor:
    words = torch.arange(1000, 1064, dtype=torch.int32)
    result: torch.Tensor = torch.ops.instructgpt_fast.simt_ptx_fault(KERNELS.index(kernel), words)
    return result


def body_of(kernel: str) -> str:
    """The text of a kernel; of one that calls load_rows, of that too."""
    start = TEXT.index(f"IGF_KERNEL(32) {kernel}(")
    body = TEXT[start : TEXT.index("\n}\n", start)]
    return body + TEXT[TEXT.index("void load_rows(") :].partition("\n}\n")[0] if "load_rows" in body else body


def test_every_kernel_is_tested() -> None:
    assert set(KERNELS) == set(FAULTS) | RIGHT
    assert len(re.findall(r"^IGF_KERNEL", TEXT, re.MULTILINE)) == len(KERNELS)


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_broken_rule_is_named_with_its_place(kernel: str) -> None:
    """In every order of threads, whenever the copies arrive."""
    rule, line = FAULTS[kernel]
    body = body_of(kernel)
    assert line in body
    first = TEXT[: TEXT.index(body.partition("\n")[0])].count("\n") + 1
    for schedule, copies in EVERY_ORDER:
        with simt.executing(schedule=schedule, copies=copies, seed=7), pytest.raises(simt.SimtError) as raised:
            run(kernel)
        message = str(raised.value)
        assert rule in message, f"{schedule}, {copies}: {message}"
        named = {int(number) for number in re.findall(rf"{SOURCE}:(\d+)", message)}
        lines = {number for number in named if line in TEXT.splitlines()[number - 1]}
        assert lines, f"{schedule}, {copies}: no line with {line!r} of {kernel} (from {first}): {message}"


def test_in_flight_names_the_issue() -> None:
    with simt.executing(), pytest.raises(simt.SimtError) as raised:
        run("missing_wait")
    issue = TEXT[: TEXT.index("ptx::cp_async<4>", TEXT.index("missing_wait(PtxArguments"))].count("\n") + 1
    assert f"issued the copy at {SOURCE}:{issue}" in str(raised.value)


@pytest.mark.parametrize("schedule, copies", EVERY_ORDER)
def test_right_kernels_are_not_accused(schedule: str, copies: str) -> None:
    words = torch.arange(1000, 1064, dtype=torch.int32)
    with simt.executing(schedule=schedule, copies=copies, seed=3):
        assert torch.equal(run("copy_right")[:32], words[:32].flip(0))
        filled = run("zero_fill_at_the_end")[:32]
    assert torch.equal(filled[:16], words[::4])
    assert not filled[16:].any()


@pytest.mark.parametrize("kernel", ["missing_wait", "left_under_way", "half_a_warp_multiplies"])
def test_a_failed_launch_leaves_nothing_behind(kernel: str) -> None:
    with simt.executing():
        with pytest.raises(simt.SimtError):
            run(kernel)
        run("copy_right")
        run("zero_fill_at_the_end")
