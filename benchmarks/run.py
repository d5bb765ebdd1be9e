"""Runs the benchmark of an op: `python benchmarks/run.py OP [--device cpu] [--rounds N] ...`; OP may be "all"."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "bench_"


def names() -> list[str]:
    """Ops that have a benchmark."""
    return sorted(p.stem.removeprefix(PREFIX) for p in (ROOT / "benchmarks" / "ops").glob(f"{PREFIX}*.py"))


def main() -> None:
    arguments = sys.argv[1:]
    known = names()
    if not arguments or arguments[0] not in (*known, "all"):
        got = arguments[0] if arguments else "nothing"
        sys.exit(f"benchmarks/run.py: the first argument must be an op or all, got {got}; ops: {', '.join(known)}")
    for op in known if arguments[0] == "all" else arguments[:1]:
        importlib.import_module(f"benchmarks.ops.{PREFIX}{op}").main(arguments[1:])


if __name__ == "__main__":
    # Run as a file, the folder of this file is on the path and the checkout is not.
    sys.path.insert(0, str(ROOT))
    main()
