"""`make gpu`: its parts in order, within the time, with a Python that is there; and what it says without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_on_gpu", ROOT / "tools" / "run_on_gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_on_gpu"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Machine:
    """Commands that take a time each, and a clock that they move."""

    def __init__(self, takes: Mapping[str, float], fails: Sequence[str] = ()) -> None:
        self.takes, self.fails = takes, fails
        self.now, self.commands = 0.0, list[str]()
        self.environments: list[Mapping[str, str]] = []

    def run(self, command: Sequence[str], environment: Mapping[str, str], limit: float) -> int:
        line = " ".join(command)
        self.commands.append(line)
        self.environments.append(environment)
        takes = next((seconds for part, seconds in self.takes.items() if part in line), 1.0)
        self.now += min(takes, limit)
        if takes > limit:
            return 124
        return 1 if any(part in line for part in self.fails) else 0


def test_all_parts_in_order_and_within_the_time(tool: ModuleType) -> None:
    """Whatever the parts take: those that would take longer are stopped."""
    machine = Machine({"setup.py": 100.0, "pytest": 900.0, "run.py": 400.0})
    outcomes = tool.everything("py", ["adamw", "gae"], 480.0, build=True, run=machine.run, clock=lambda: machine.now)
    assert [outcome.part for outcome in outcomes] == [
        "build", "kernels' tests", "micro-kernels", "benchmark of adamw", "benchmark of gae", "docs/measured.md"]
    assert [outcome.status for outcome in outcomes] == [0, 124, 0, 124, 124, 0]
    assert machine.now <= 480.0
    assert machine.environments[0] == {"INSTRUCTGPT_FAST_CUDA": "ON", "INSTRUCTGPT_FAST_SIMT": "OFF"}


def test_benchmarks_share_what_is_left(tool: ModuleType) -> None:
    machine = Machine({"setup.py": 60.0})
    tool.everything("py", ["a", "b", "c", "d"], 260.0, build=True, run=machine.run, clock=lambda: machine.now)
    runs = [line for line in machine.commands if "run.py" in line]
    # 198 seconds are left after 60 of the build and one each of the tests and the micro-kernels: for four, and the end.
    budget = (198 - tool.DOCUMENT_SECONDS) / 4 - tool.LEAST_SECONDS
    assert runs[0].split()[-4:] == ["--budget", f"{budget:.1f}", "--seconds", f"{budget / 3:.1f}"]
    assert all("--device cuda --no-compile" in line for line in runs)


def test_a_part_that_fails_is_reported_and_the_others_run(tool: ModuleType) -> None:
    machine = Machine({}, fails=["pytest"])
    outcomes = tool.everything("py", ["a"], 480.0, build=False, run=machine.run, clock=lambda: machine.now)
    assert [outcome.status for outcome in outcomes] == [1, 0, 0, 0]
    assert "FAILED with 1" in str(outcomes[0])
    broken = Machine({}, fails=["setup.py"])
    outcomes = tool.everything("py", ["a"], 480.0, build=True, run=broken.run, clock=lambda: broken.now)
    assert [outcome.part for outcome in outcomes] == ["build"]  # nothing to test without libraries


def test_the_python_that_sees_the_gpu_is_taken(tool: ModuleType) -> None:
    assert tool.python_with_gpu("/named", lambda python: True) == "/named"
    assert tool.python_with_gpu(None, lambda python: "/.venv/" in python).endswith(".venv/bin/python")
    with pytest.raises(SystemExit, match=r"no torch with CUDA that sees the GPU in /named"):
        tool.python_with_gpu("/named", lambda python: False)


def test_without_a_gpu_it_ends_at_once(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tool, "gpu_name", lambda: None)
    assert tool.main([]) == 1
    assert "this machine has no NVIDIA GPU" in capsys.readouterr().err


def test_commands_end_with_their_status_or_at_the_limit(tool: ModuleType) -> None:
    wish = [sys.executable, "-c", "import os, sys; sys.exit(int(os.environ['WISH']))"]
    assert tool.execute(wish, {"WISH": "3"}, 60) == 3
    assert tool.execute([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2) == 124
