"""Runs the generation benchmarks, each in a process: `python benchmarks/run_generation.py [NAME ...] [options]`.

Without names all of them run, about twelve minutes on two quiet cores. Options go to each: --no-record, --rounds N,
--threads N.
Results are written to benchmarks/results/<device>/generation_<name>.json; tools/write_measured.py makes tables of them.
On a machine that is not quiet give the run priority: chrt -r 3 python benchmarks/run_generation.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("batches", "floor", "rollouts", "joining", "sharing", "samplers", "server")


def main() -> None:
    """Run the named benchmarks one after the other; exits with 1 when one of them failed."""
    arguments = sys.argv[1:]
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:count] or list(NAMES), arguments[count:]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"benchmarks/run_generation.py: the benchmarks are {', '.join(NAMES)}, got {', '.join(unknown)}")
    # As in the contenders' processes (benchmarks/stages/compare.py), for those that are timed in this one.
    environment = {"GOMP_SPINCOUNT": "10000", **os.environ}
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        script = ROOT / "benchmarks" / "generation" / f"bench_{name}.py"
        if subprocess.run([sys.executable, str(script), *options], env=environment, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - started:.0f} s", flush=True)
    if failed:
        sys.exit(f"benchmarks/run_generation.py: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
