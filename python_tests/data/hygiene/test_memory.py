"""Memory does not grow with the input: the peak of a process of its own, on inputs of two sizes."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .files import write_jsonl

SCRIPT = """
import re, sys, threading, time
from instructgpt_fast.data.hygiene import plan, prepare, spill
plan.CHUNK_BYTES, spill.PART_ROWS, spill.BLOCK_ROWS, spill.BUFFER_BYTES = 1 << 17, 1 << 11, 1 << 12, 1 << 20

def anonymous():  # what cannot be dropped and read again from a file
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

peak = 0
small, source, out = sys.argv[1:]
prepare(data=small, output_dir=out + "-warm", contamination=small, languages=("en", "und"), progress=False)
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
report = prepare(data=source, output_dir=out, contamination=small, languages=("en", "und"), progress=False, processes=1)
print("grown by", peak - before, "of", report.records)
"""
WORDS = [a + b for a in ("sea", "sun", "rain", "wind", "moon", "land") for b in ("side", "fall", "mill", "mark")]


def records(count: int) -> list[dict[str, str]]:
    draw = random.Random(1)
    return [{"prompt": " ".join(draw.choices(WORDS, k=draw.randrange(8, 40))), "user": f"user {draw.randrange(count)}"}
            for _ in range(count)]


def grown(source: Path, small: Path) -> int:
    """Kilobytes of anonymous memory at the peak of a run above those before it."""
    command = [sys.executable, "-c", SCRIPT, str(small), str(source), str(source.with_suffix(".out"))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"grown by (-?\d+) of (\d+)", told)
    assert found is not None, told
    assert int(found[2]) > 1000
    return int(found[1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Sixteen times the records, each with a user of its own, within 8 MiB; their text alone is over 12 MB."""
    small = write_jsonl(tmp_path / "small.jsonl", records(100))
    less = write_jsonl(tmp_path / "less.jsonl", records(4_000))
    more = write_jsonl(tmp_path / "more.jsonl", records(64_000))
    assert more.stat().st_size > 12e6
    few, many = grown(less, small), grown(more, small)
    assert many - few < 8 << 10, f"peak above the start: {few} kB for 4,000 records, {many} kB for 64,000"
