"""What `make gpu` does: build for this machine's GPU, run every kernel's tests there, then all micro-benchmarks.

    python tools/run_on_gpu.py [--minutes 8] [--no-build] [--only OP] [--python PATH]

It uses a Python that is there and whose torch sees the GPU (--python, else the one that runs this, else .venv's, else
python3 on PATH), and downloads nothing. With --no-build the libraries in instructgpt_fast/lib are used as they are:
they may have been built elsewhere (docs/building.md). A part that fails does not keep the later ones from running; the
exit status is 1 when one did. What did not fit into the time is named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEES_GPU = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)"
TESTS_SHARE = 0.4  # of the time that is left after the build, at most
LEAST_SECONDS = 6.0  # of a benchmark: starting Python, the ceilings, one case
DOCUMENT_SECONDS = 5.0  # kept for the last part

Run = Callable[[Sequence[str], Mapping[str, str], float], int]
"""Runs a command with more environment and a limit in seconds; returns its exit status, 124 at the limit."""


@dataclass
class Outcome:
    """What became of one part."""

    part: str
    status: int
    seconds: float

    def __str__(self) -> str:
        said = {0: "done", 124: "stopped: out of time"}.get(self.status, f"FAILED with {self.status}")
        return f"{self.part:<34} {said} ({self.seconds:.0f} s)"


def execute(command: Sequence[str], environment: Mapping[str, str], limit: float) -> int:
    """The Run that runs; at the limit the command ends with all that it has started."""
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, start_new_session=True)
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def gpu_name() -> str | None:
    """What nvidia-smi calls the first GPU; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    lines = found.stdout.strip().splitlines()
    return lines[0] if found.returncode == 0 and lines else None


def python_with_gpu(named: str | None, sees: Callable[[str], bool]) -> str:
    """The first Python whose torch sees the GPU; ends the program where there is none."""
    candidates = [named] if named else [sys.executable, str(ROOT / ".venv" / "bin" / "python"), shutil.which("python3")]
    for python in dict.fromkeys(p for p in candidates if p):
        if sees(python):
            return python
    tried = ", ".join(dict.fromkeys(p for p in candidates if p))
    sys.exit(f"make gpu: no torch with CUDA that sees the GPU in {tried}; install one (torch 2.11 or newer), or name "
             "the Python that has it: make gpu PYTHON=/path/to/python3")


def sees_gpu(python: str) -> bool:
    """Whether this Python's torch sees a GPU."""
    try:
        return subprocess.run([python, "-c", SEES_GPU], cwd=ROOT, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def benchmarks() -> list[str]:
    """Ops with a benchmark."""
    return sorted(path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks" / "ops").glob("bench_*.py"))


def everything(
    python: str, ops: Sequence[str], seconds: float, *, build: bool, run: Run, clock: Callable[[], float]
) -> list[Outcome]:
    """Runs all parts within the time, and returns what became of them."""
    started, outcomes = clock(), list[Outcome]()

    def left() -> float:
        return seconds - (clock() - started)

    def part(name: str, command: Sequence[str], limit: float, **environment: str) -> int:
        print(f"\n== {name}", flush=True)
        began = clock()
        status = 124 if limit <= 0 else run(command, environment, limit)
        outcomes.append(Outcome(name, status, clock() - began))
        return status

    if build:
        # The architectures are those of this machine's GPUs unless the environment names others.
        built = part("build", [python, "setup.py", "--quiet", "build_ext", "--inplace"], left(),
                     INSTRUCTGPT_FAST_CUDA="ON", INSTRUCTGPT_FAST_SIMT="OFF")
        if built != 0:
            return outcomes
    tests_until = left() * (1 - TESTS_SHARE)
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "python_tests/gpu"]
    part("kernels' tests", pytest, left() - tests_until)
    part("micro-kernels", [python, "-m", "benchmarks.microkernels", "--device", "cuda"], min(60.0, left()))
    for place, op in enumerate(ops):
        rest = left() - DOCUMENT_SECONDS
        share = rest / (len(ops) - place)
        # Every process starts Python and measures the ceilings; what is left goes to the cases, none of which may
        # take more than a third of it.
        budget = max(0.0, share - LEAST_SECONDS)
        part(f"benchmark of {op}",
             [python, "benchmarks/run.py", op, "--device", "cuda", "--no-compile", "--budget", f"{budget:.1f}",
              "--seconds", f"{max(0.2, budget / 3):.1f}"],
             min(rest, 2 * share + LEAST_SECONDS))
    part("docs/measured.md", [python, "tools/write_measured.py"], max(DOCUMENT_SECONDS, left()))
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts, print what became of them; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--no-build", action="store_true", help="use the libraries that are there")
    parser.add_argument("--only", help="benchmark this op alone")
    parser.add_argument("--python", help="the Python whose torch sees the GPU")
    options = parser.parse_args(arguments)
    until = time.monotonic() + 60 * options.minutes
    name = gpu_name()
    if name is None:
        print("make gpu: this machine has no NVIDIA GPU (nvidia-smi is missing or names none), so nothing was run; the "
              "kernels run without one in the emulator: make test", file=sys.stderr)
        return 1
    python = python_with_gpu(options.python, sees_gpu)
    print(f"{name}, {python}, {options.minutes:g} minutes", flush=True)
    known = benchmarks()
    if options.only and options.only not in known:
        parser.error(f"--only: {options.only} has no benchmark; there are {', '.join(known)}")
    outcomes = everything(python, [options.only] if options.only else known, until - time.monotonic(),
                          build=not options.no_build, run=execute, clock=time.monotonic)
    print("\n" + "\n".join(map(str, outcomes)))
    return 0 if all(outcome.status == 0 for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
