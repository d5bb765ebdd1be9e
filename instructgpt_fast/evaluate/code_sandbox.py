"""Running programs that a model wrote, each in a process of its own with limits; evaluate/code_jail.py is that process.

Not covered: see code_jail.py. Run what you would not run yourself in a virtual machine that holds nothing of value.
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructgpt_fast.errors import ConfigError

_JAIL = Path(__file__).with_name("code_jail.py")
# What root runs becomes one of these users: seldom an account's, and below 65,536, all that many containers have.
_FIRST_USER, _USERS = 50_000, 10_000
_GRACE = 15.0  # seconds for the interpreter to start, and for the jail to kill and report
# A model that cannot import what others can would look like one that cannot program.
_CANARY = """
import collections, decimal, hashlib, heapq, itertools, json, math, random, re, typing
def f(x):
    return x
"""


@dataclass(frozen=True)
class CodeLimits:
    """What a program may use. seconds: of wall-clock time and of CPU time. memory_mb: address space of each process.

    processes: and threads, of the program and all that it starts; 16 MiB are all that it may write.
    """

    seconds: float = 10.0
    memory_mb: int = 1024
    processes: int = 16
    folder_mb: int = 16


@dataclass(frozen=True)
class CodeProblem:
    """A program and its tests, both Python.

    tests: run behind the program in the same module. entry_point: the function that `check`, which the tests define,
    is called with (HumanEval's form); "" when the tests call what they test themselves.
    """

    program: str
    tests: str
    entry_point: str = ""


@dataclass(frozen=True)
class Verdict:
    """outcome: "passed" only when the last test is behind us. detail: what was raised, or how the process ended."""

    outcome: Literal["passed", "failed", "timed_out"]
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.outcome == "passed"


def run_programs(
    problems: Sequence[CodeProblem], limits: CodeLimits | None = None, *, workers: int | None = None
) -> list[Verdict]:
    """Run each program with its tests; one verdict a problem, in their order.

    workers: programs at a time; None for as many as the machine has cores. The caller answers for running foreign code:
    ask for consent first. Raises ConfigError where the sandbox does not work, told apart by two trial programs.
    """
    limits = CodeLimits() if limits is None else limits
    missing_isolation()
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        return [verdict for verdict, _ in pool.map(lambda problem: _run(problem, limits), problems)]
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted caller waits for what runs, not for what has not begun


@functools.cache
def missing_isolation() -> tuple[str, ...]:
    """What the kernel here does not cut a program off from: empty, or texts such as "network (Operation ...)".

    Raises ConfigError when a program that must pass does not, or one that must fail does.
    """
    if sys.platform != "linux":
        raise ConfigError(f"code: programs can be run on Linux only, got {sys.platform}; evaluate them there.")
    right, missing = _run(CodeProblem(_CANARY, "def check(f):\n    assert f(1) == 1", "f"), CodeLimits())
    wrong, _ = _run(CodeProblem(_CANARY, "def check(f):\n    assert f(1) == 2", "f"), CodeLimits())
    if not right.passed or wrong.passed:
        raise ConfigError(
            "code: the sandbox must pass a right program and fail a wrong one, got "
            f"{right.outcome} ({right.detail or 'no detail'}) and {wrong.outcome}; run as a user who is not root and "
            "may read this Python's library."
        )
    return tuple(missing)


def _run(problem: CodeProblem, limits: CodeLimits) -> tuple[Verdict, list[str]]:
    """Run one program; also what it was not cut off from."""
    with tempfile.TemporaryDirectory(prefix="igf-code-", ignore_cleanup_errors=True) as folder:
        asked: dict[str, Any] = {
            "program": problem.program, "tests": problem.tests, "entry_point": problem.entry_point,
            "token": secrets.token_hex(16), "folder": folder, "folder_bytes": limits.folder_mb << 20,
            "memory_bytes": limits.memory_mb << 20, "processes": limits.processes, "seconds": limits.seconds,
            "cpu_seconds": max(1, math.ceil(limits.seconds)), "user": _FIRST_USER + secrets.randbelow(_USERS),
        }
        jail = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_JAIL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={}, cwd=folder, close_fds=True, start_new_session=True,
        )
        try:
            # JSON escapes a lone surrogate, which no encoding can hold.
            out, err = jail.communicate(json.dumps(asked).encode("ascii"), timeout=limits.seconds + _GRACE)
        except subprocess.TimeoutExpired:
            return Verdict("timed_out", "the jail did not report"), []
        finally:
            jail.kill()
            jail.wait()
    try:
        report = json.loads(out)
        return Verdict(report["outcome"], report["detail"]), report["missing"]
    except (ValueError, KeyError, TypeError):
        lines = err.decode("utf-8", "replace").strip().splitlines()
        return Verdict("failed", f"the jail did not report: {lines[-1] if lines else 'it was killed'}"), []
