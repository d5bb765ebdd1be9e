"""One contender at one stage in its own process, so that peak memory is its own; prints one JSON line.

python -m benchmarks.stages.contender ours sft --steps 6 --work "$WORK_AS_JSON"

Everything is imported before memory is first read: what a library weighs by itself is reported apart from what the
stage needs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from pathlib import Path

from benchmarks.stages.clock import StepClock, peak_bytes
from benchmarks.stages.work import STAGES, Work

MODULES = {"ours": "ours", "plain": "plain_stages", "trl": "trl_stages", "transformers": "transformers_stages"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=MODULES)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps, PPO iterations or generation calls")
    parser.add_argument("--work", type=Work.from_json, required=True, help="benchmarks.stages.work.Work as JSON")
    options = parser.parse_args()
    module = importlib.import_module(f"benchmarks.stages.{MODULES[options.contender]}")
    import torch

    torch.set_num_threads(options.work.threads)
    torch.manual_seed(options.work.seed)
    stage = module.prepare(options.stage)
    imported = peak_bytes()
    clock = StepClock()
    with tempfile.TemporaryDirectory() as scratch:
        stage(options.work, options.steps, clock, Path(scratch))
    print(json.dumps({
        "seconds": clock.seconds, "tokens": clock.tokens, "peak_bytes": clock.peak, "import_bytes": imported,
    }))


if __name__ == "__main__":
    main()
