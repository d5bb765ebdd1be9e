"""One contender at one stage in its own process, so that peak memory is its own; prints one JSON line.

python -m benchmarks.stages.contender ours sft --folder FILES --vocab 8192 --steps 6
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import tempfile
from pathlib import Path

import torch

from benchmarks.stages.work import Size, Work

MODULES = {"ours": "ours", "plain": "plain_stages", "trl": "peers", "transformers": "peers"}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=MODULES)
    parser.add_argument("stage", choices=("pretrain", "sft", "reward", "ppo", "generate"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8, help="rows of a generation call")
    options = parser.parse_args()
    torch.set_num_threads(2)
    work = Work(Size(options.vocab), options.folder)
    module = importlib.import_module(f"benchmarks.stages.{MODULES[options.contender]}")
    before = peak_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        run = getattr(module, options.stage)
        if options.stage == "generate":
            seconds = run(work, options.batch, options.steps)
        else:
            seconds = run(work, options.steps, Path(scratch))
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "start_bytes": before}))


if __name__ == "__main__":
    main()
