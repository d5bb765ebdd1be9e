"""`python -m instructgpt_fast.simt`: the account of one op, faults, and what it says to a wrong call."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from instructgpt_fast import simt
from instructgpt_fast.simt.__main__ import main
from instructgpt_fast.simt.examples import EXAMPLES, Draw
from python_tests.house.test_ops import OPS
from python_tests.house.tree import ROOT

GUIDE = (ROOT / "docs" / "simt.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"```\n\$ (python -m instructgpt_fast\.simt .*?)\n```", GUIDE, re.DOTALL)
needs_the_emulator = pytest.mark.skipif(
    not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


def call(line: str, width: int = 200) -> tuple[int, str]:
    """Exit status and what was printed."""
    screen = io.StringIO()
    status = main(line.split(), console=Console(file=screen, width=width))
    return status, screen.getvalue()


@needs_the_emulator
def test_the_account_of_one_op() -> None:
    status, text = call("layer_norm --shape 4 64 --dtype bf16 --schedule random --seed 3 --backward")
    assert status == 0
    assert "layer_norm_forward" in text and "layer_norm_backward" in text
    row = next(line for line in text.splitlines() if re.search(r"│ x\s", line))
    assert [cell.strip() for cell in row.split("│")][1:5] == ["x", "512", "512", "16"]
    assert "wavefronts" in text


@needs_the_emulator
def test_a_fault_is_printed_with_status_1() -> None:
    _, text = call("layer_norm --shape 3 1040 --sites")
    places = re.findall(r"drop_barrier\s*│ (\S+)", text)
    status, text = call(f"layer_norm --shape 3 1040 --mutation drop_barrier@{places[0]}")
    assert status == 1
    assert "race" in text and "Traceback" not in text


@needs_the_emulator
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_table_fits_into_80_columns(name: str) -> None:
    """Nothing is cut off: no heading, no number, no name of a buffer."""
    status, text = call(name, width=80)
    assert status == 0
    assert "…" not in text


@needs_the_emulator
@pytest.mark.parametrize("line", ["adamw", "layer_norm --backward", "sample_token"])
def test_results_stand_beside_those_of_the_cpu(line: str) -> None:
    """Close when all is well; far, or not finite, when a store is left out."""
    text = call(f"{line} --sites")[1]
    assert float(re.findall(r"own loops: at most (\S+) apart", text.replace("equal", "at most 0 apart"))[0]) < 1e-3
    place = re.findall(r"drop_store\s*│ (csrc/ops/\S+)", text)[-1]
    broken = call(f"{line} --mutation drop_store@{place}")[1]
    found = re.findall(r"own loops: (?:at most (\S+) apart|[\d,]+ numbers are not finite in one)", broken)
    assert found and (not found[0] or float(found[0]) > 1e-3), broken


@needs_the_emulator
def test_wasted_sectors_stand_beside_the_least() -> None:
    """Rows of 37 elements do not begin on sectors."""
    _, text = call("layer_norm --shape 3 37", width=80)
    assert re.search(r"│ x .*│ +\d+ \(\d+\) │", text)
    assert "in brackets: as many sectors would do" in text


@needs_the_emulator
def test_a_mutation_that_strikes_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise a mistyped line would look like a kernel that bears to be broken there."""
    assert call("layer_norm --mutation drop_barrier@nowhere.cuh:1")[0] == 2
    assert "nothing was broken: drop_barrier@nowhere.cuh:1" in capsys.readouterr().err


@needs_the_emulator
def test_a_mutation_that_breaks_no_rule_is_named() -> None:
    _, text = call("layer_norm --sites")
    places = re.findall(r"drop_store\s*│ (\S+)", text)
    status, text = call(f"layer_norm --mutation drop_store@{places[0]}")
    assert status == 0
    assert "numbers are not finite in one of the two" in text
    assert "no rule was broken" in text and "python_tests/kernels/test_layer_norm.py" in text


@needs_the_emulator
@pytest.mark.parametrize("session", SESSIONS)
def test_the_guide_shows_what_is_printed(session: str) -> None:
    """The lines of the source that it names are those of today."""
    assert len(SESSIONS) == 2
    command, _, rest = session.partition("\n")
    shown, _, status = rest.partition("\n$ echo $?\n")
    printed_status, printed = call(command.removeprefix("python -m instructgpt_fast.simt "), width=80)
    assert [line.rstrip() for line in printed.rstrip().splitlines()] == shown.splitlines()
    assert printed_status == int(status or 0)


@needs_the_emulator
def test_the_list_names_every_op() -> None:
    status, text = call("--list")
    assert status == 0
    for name, example in EXAMPLES.items():
        assert re.search(rf"│ {name}\s+│ {' '.join(example.dims)}\s", text), name


@pytest.mark.parametrize("line, message", [
    ("layer_nrom", "no op 'layer_nrom', did you mean 'layer_norm'?; --list names them"),
    ("", "no op was named; --list names them"),
    ("layer_norm --shape 4", "layer_norm takes 2 sizes above 0 (rows, width), got 4"),
    ("layer_norm --shape 4 0", "got 4 0"),
    ("layer_norm --mutation drop_barrier", "--mutation is KIND@FILE:LINE, as drop_barrier@reductions.cuh:57"),
    ("layer_norm --mutation drop_barrier@reductions.cuh:x", "--mutation is KIND@FILE:LINE"),
    ("layer_norm --seed -1", "seed must be in [0, 2^63), got -1"),
    ("layer_norm --multiprocessors 0", "multiprocessors must be in [1, 2^31), got 0"),
    ("layer_norm --mutation drop_barier@a.cu:1", "no mutation 'drop_barier', did you mean 'drop_barrier'?"),
])
def test_a_wrong_call_is_explained_with_status_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(line)[0] == 2
    assert message in capsys.readouterr().err


@needs_the_emulator
def test_an_op_without_a_backward_pass_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("gae --backward")[0] == 2
    assert "gae has no backward pass" in capsys.readouterr().err


@needs_the_emulator
def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "instructgpt_fast.simt", "layer_norm", "--shape", "2", "32"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "layer_norm_forward" in result.stdout


def test_every_op_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPS)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_example_runs(name: str, dtype: torch.dtype) -> None:
    """On the CPU as on the emulator: the numbers of its shape are named, and the call accepts them."""
    example = EXAMPLES[name]
    assert len(example.dims) == len(example.shape)
    outputs = example.call(Draw(dtype, True, torch.Generator().manual_seed(0)), *example.shape)
    assert all(isinstance(output, torch.Tensor) for output in outputs)
