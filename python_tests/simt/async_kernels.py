"""The kernels of csrc/simt/selftest/async_*_cuda.cu by name: run in every order, held to what they must be told."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from python_tests.house.tree import ROOT

TABLES = ("mbarriers", "copies", "proxies", "registers")  # the order of run_async
EVERY_ORDER = [(schedule, copies) for schedule in ("forward", "reverse", "random", "preempting")
               for copies in ("lazy", "eager", "random")]
INPUT = torch.arange(64 * 32, dtype=torch.float32).reshape(64, 32)


def source_of(table: str) -> str:
    return f"csrc/simt/selftest/async_{table}_cuda.cu"


def kernels_of(table: str) -> list[str]:
    """Their names in the order of their numbers."""
    return re.findall(r'^    \{"(\w+)", &', (ROOT / source_of(table)).read_text(), re.MULTILINE)


def run(table: str, kernel: str) -> tuple[Tensor, Tensor]:
    """Returns the output and the sums."""
    which = kernels_of(table).index(kernel)
    results: tuple[Tensor, Tensor] = torch.ops.instructgpt_fast.simt_async(TABLES.index(table), which, INPUT)
    return results


def assert_told(table: str, kernel: str, rule: str, *lines: str) -> None:
    """In every order, whenever copies arrive, the launch fails of `rule` (a pattern) and names one of the lines."""
    text = (ROOT / source_of(table)).read_text().splitlines()
    for line in lines:
        assert any(line in each for each in text), f"no line has {line!r}"
    for schedule, copies in EVERY_ORDER:
        with (simt.executing(schedule=schedule, copies=copies, seed=7, architecture=90),
              pytest.raises(simt.SimtError) as raised):
            run(table, kernel)
        message = str(raised.value)
        assert re.search(rule, message), f"{schedule}, {copies}: {message}"
        named = [text[int(number) - 1] for number in re.findall(rf"{source_of(table)}:(\d+)", message)]
        told = any(line in each for each in named for line in lines)
        assert told, f"{schedule}, {copies}: none of {named} has one of {lines}: {message}"
