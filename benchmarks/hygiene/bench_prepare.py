"""Hygiene with every rule on, on real text: lines a second, and memory on inputs of two sizes.

python -m benchmarks.hygiene.bench_prepare --corpus /tmp/corpus-hygiene        (built by benchmarks.hygiene.corpus)

Each case is a process of its own; its anonymous memory (RssAnon, what cannot be dropped and read again) is sampled ten
times a second over it and its workers. As evaluation file serves every 500th line, so that what must be found is known.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measure import write_results

PERIOD = 0.1
LEAKED = 500  # every so many-th line is an evaluation text
CASES = (("prompts.jsonl", 250_000), ("prompts.jsonl", None), ("documents.jsonl", None))


def tree(pid: int) -> Iterator[int]:
    """A process and its children."""
    yield pid
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            yield from tree(int(child))
    except OSError:
        return


def anonymous(pid: int) -> int:
    """Anonymous resident bytes of a process; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def watched(command: list[str]) -> dict[str, Any]:
    """Run a command; its seconds, those of the cores, and the peak of anonymous memory: its own, a worker's, of all."""
    started, before = time.monotonic(), os.times()
    peak = {"main": 0, "worker": 0, "all": 0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = [anonymous(pid) for pid in tree(process.pid)]
            peak["main"] = max(peak["main"], sizes[0])
            peak["worker"] = max(peak["worker"], *sizes[1:], 0)
            peak["all"] = max(peak["all"], sum(sizes))
            time.sleep(PERIOD)
    if process.returncode:
        raise SystemExit(f"bench_prepare: {' '.join(command)} ended with {process.returncode}")
    after = os.times()
    cores = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": time.monotonic() - started, "core_seconds": cores, "peak_anonymous_bytes": peak}


def case(source: Path, lines: int | None, processes: int, folder: Path) -> dict[str, Any]:
    """Measure one input: a corpus file or its first lines."""
    data, evaluation = folder / source.name, folder / "evaluation.jsonl"
    leaked = 0
    with source.open("rb") as file, data.open("wb") as copy, evaluation.open("wb") as held_out:
        for number, line in enumerate(islice(file, lines)):
            copy.write(line)
            if number % LEAKED == 0:
                held_out.write(line)
                leaked += 1
    output = folder / "out"
    found = watched([
        sys.executable, "-m", "instructgpt_fast", "prepare", "--data", str(data), "--output-dir", str(output),
        "--languages", "en", "und", "--contamination", str(evaluation), "--processes", str(processes),
    ])
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return {
        "corpus": source.name, "lines": report["lines"], "bytes": data.stat().st_size, "processes": processes, **found,
        "lines_per_second": report["lines"] / found["seconds"], "evaluation_texts": leaked, "kind": report["kind"],
        "removed": report["removed"], "splits": report["splits"], "parts": report["timing"]["parts"],
        "contamination": [{k: v for k, v in one.items() if k != "file"} for one in report["contamination"]],
        "pii": report["pii"], "sha256": {name: about["sha256"] for name, about in report["files"].items()},
    }


def main() -> None:
    """Measure every case and write benchmarks/results/cpu/hygiene.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("/tmp/corpus-hygiene"))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    about = json.loads((options.corpus / "about.json").read_text(encoding="utf-8"))
    rows = []
    for name, lines in CASES:
        with tempfile.TemporaryDirectory(prefix="bench-hygiene-") as folder:
            rows.append(case(options.corpus / name, lines, options.processes, Path(folder)))
        row = rows[-1]
        print(f"{row['corpus']}: {row['lines']:,} lines, {row['seconds']:.0f} s, {row['lines_per_second']:,.0f} "
              f"lines/s, {row['peak_anonymous_bytes']['all'] / 2**20:.0f} MiB", flush=True)
    print(write_results("hygiene", "cpu", {"corpus": about, "rows": rows}))


if __name__ == "__main__":
    main()
