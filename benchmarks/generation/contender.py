"""One contender in a process of its own, which serves calls: lines of JSON in, a line of JSON out for each.

    python -m benchmarks.generation.contender ours --weights W --size '{"vocab": 8192, ...}' --threads 2

Started and asked by `Contender`. A process sleeps between its calls, so contenders can take turns call by call, and
its peak memory is its own.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.generation.load import Load
from benchmarks.measure import reset_peak
from benchmarks.stages.clock import peak_bytes
from benchmarks.stages.compare import ROOT, SPIN
from benchmarks.stages.work import Size

HOMES = {
    "ours": ("ours", "Ours"), "transformers": ("rivals", "Transformers"), "continuous": ("rivals", "Continuous"),
    "trl": ("rivals", "Trl"),
}
NEEDS = {"transformers": "transformers", "continuous": "transformers", "trl": "trl"}
Task = Literal["generate", "rollout"]


@dataclass(frozen=True)
class Call:
    """What one call gave. seconds: of its clock. completions: tokens of every request. peak_bytes: highest resident
    memory during it. import_bytes: what the process held before it had weights."""

    seconds: float
    completions: list[list[int]]
    peak_bytes: int
    import_bytes: int

    @property
    def tokens(self) -> int:
        """Useful tokens: those that the requests are for."""
        return sum(map(len, self.completions))


class Contender:
    """A running contender; use it in a `with`, which ends the process."""

    def __init__(self, name: str, weights: Path, size: Size, threads: int) -> None:
        environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": SPIN, **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        call = [sys.executable, "-m", "benchmarks.generation.contender", name, "--weights", str(weights)]
        call += ["--size", json.dumps(asdict(size)), "--threads", str(threads)]
        self.name = name
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(call, env=environment, text=True, **pipes)

    def call(self, task: Task, load: Load, number: int) -> Call:
        """Serve a load; `number` seeds what is drawn."""
        return Call(**self._ask({"do": task, "load": load.to_json(), "number": number}))

    def gap(self, tokens: Sequence[int], one: int, other: int) -> float:
        """Distance of two ids' logits after some tokens; only ours is asked."""
        return float(self._ask({"do": "gap", "tokens": list(tokens), "one": one, "other": other})["gap"])

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer says it
            print(json.dumps(message), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name}: the process ended with {self._process.wait()}; its words stand above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()  # the end of its input ends it
            self._process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(contender: Any, imported: int) -> None:
    """Answer every line of standard input."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "gap":
            answer: dict[str, Any] = {"gap": contender.gap(asked["tokens"], asked["one"], asked["other"])}
        else:
            gc.collect()
            reset_peak()
            seconds, completions = getattr(contender, asked["do"])(Load.from_json(asked["load"]), asked["number"])
            answer = {
                "seconds": seconds, "completions": completions, "peak_bytes": peak_bytes(), "import_bytes": imported,
            }
        print(json.dumps(answer), file=out, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=HOMES)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", type=lambda text: Size(**json.loads(text)), required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    home, name = HOMES[options.contender]
    module = importlib.import_module(f"benchmarks.generation.{home}")
    import torch

    torch.set_num_threads(options.threads)
    imported = peak_bytes()
    serve(getattr(module, name)(options.weights, options.size), imported)


if __name__ == "__main__":
    main()
