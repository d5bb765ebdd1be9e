"""The emulator, one instruction a kernel: against answers worked out from the documents, and the committed outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.microkernels import __main__ as command
from benchmarks.microkernels import golden, run
from benchmarks.microkernels.cases import CASES, Case
from instructgpt_fast import simt
from python_tests.simt.microkernel_answers import ANSWERS, answer

needs_the_emulator = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")
SCHEDULES = ("forward", "reverse", "random", "preempting")


def emulated(schedule: str) -> golden.Outputs:
    copies = "random" if schedule == "random" else "lazy"
    with simt.executing(schedule=schedule, seed=5, copies=copies, architecture=90):
        return {name: run.one(case, "simt") for name, case in CASES.items()}


def differences(expected: golden.Outputs, found: golden.Outputs) -> list[str]:
    return [line for name, words in expected.items() for line in golden.differences(CASES[name], words, found[name])]


def answers() -> golden.Outputs:
    return {name: tuple(answer(case)) for name, case in CASES.items()}


def test_every_case_has_an_answer() -> None:
    assert set(ANSWERS) == set(CASES)


@needs_the_emulator
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_answers_of_the_emulator(schedule: str) -> None:
    lines = differences(answers(), emulated(schedule))
    assert not lines, "\n".join(lines)


@needs_the_emulator
def test_the_committed_outputs() -> None:
    """The emulator as it is now: what was written from it must have equal bits, what a GPU wrote must be near."""
    known = golden.read()
    assert known is not None and set(known.outputs) == set(CASES), "run `python -m benchmarks.microkernels`"
    lines = differences(known.outputs, emulated("forward"))
    assert not lines, "\n".join(lines)


def test_the_committed_outputs_against_the_answers() -> None:
    """Also without the emulator, and so that a GPU's outputs would be held against the documents too."""
    known = golden.read()
    assert known is not None
    lines = differences(answers(), known.outputs)
    assert not lines, "\n".join(lines)


def test_a_difference_is_found() -> None:
    exact, near = CASES["bits"], CASES["math_exp"]
    words = tuple(answer(exact))
    assert golden.differences(exact, words, words) == []
    changed = (words[0] ^ 1, *words[1:])
    assert len(golden.differences(exact, words, changed)) == 1
    assert golden.differences(exact, words, words[1:]) == [f"bits: {len(words) - 1} words instead of {len(words)}"]
    words = tuple(answer(near))
    place = 60
    assert golden.differences(near, words, (*words[:place], words[place] + 1, *words[place + 1 :])) == []
    assert len(golden.differences(near, words, (*words[:place], words[place] + 8, *words[place + 1 :]))) == 1
    nan, infinity = 0x7FC00000, 0x7F800000
    assert not golden.near(near, nan, infinity) and not golden.near(near, infinity, nan)
    assert golden.near(near, nan, nan + 1) and not golden.near(near, infinity, infinity | 1 << 31)


def test_outputs_of_other_inputs_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden.write(golden.Golden("a GPU", {"bits": (1, 2), "match": (3,)}), tmp_path / "golden.json")
    monkeypatch.setitem(CASES, "match", Case("match", tuple(range(32))))
    known = golden.read(tmp_path / "golden.json")
    assert known is not None and known.confirmed
    assert known.outputs == {"bits": (1, 2)}


def test_without_a_gpu_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no CUDA device here"):
        command.main(["--device", "cuda"])


@needs_the_emulator
def test_the_emulator_does_not_overwrite_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "golden.json"
    known = golden.read()
    assert known is not None
    golden.write(golden.Golden("a GPU", known.outputs), path)
    monkeypatch.setattr(golden.read, "__defaults__", (path,))
    monkeypatch.setattr(golden.write, "__defaults__", (path,))
    command.main(["--device", "simt"])
    with pytest.raises(SystemExit, match=r"golden\.json is of a GPU"):
        command.main(["--device", "simt", "--write"])
    other = tuple(word ^ 1 for word in known.outputs["bits"])
    golden.write(golden.Golden("a GPU", {**known.outputs, "bits": other}), path)
    with pytest.raises(SystemExit, match=r"bits\[0\]"):
        command.main(["--device", "simt"])
