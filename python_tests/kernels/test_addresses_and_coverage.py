"""The kernels under AddressSanitizer, and how much of them all cases together reach.

AddressSanitizer sees what the emulator alone cannot: an index past the end of an array in registers or local memory.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

import pytest

from instructgpt_fast import simt

ROOT = Path(__file__).resolve().parents[2]
COVERED_AT_LEAST = 0.95

Hits = dict[str, dict[int, int]]  # source -> line -> how often it ran


@pytest.fixture(scope="module")
def library() -> Path:
    """Builds the address lane's library in the folder where this checkout's other libraries were built."""
    folder = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sysconfig.get_config_var('SOABI')}"
    if not simt.available() or not (folder / "CMakeCache.txt").is_file():
        pytest.skip("the emulator was not built in this checkout (INSTRUCTGPT_FAST_SIMT=ON)")
    cmake = re.search(r"^CMAKE_COMMAND:INTERNAL=(.*)$", (folder / "CMakeCache.txt").read_text(), re.MULTILINE)
    assert cmake is not None
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
    command = [cmake.group(1), "--build", str(folder), "--parallel", jobs, "--target", "igf_simt_addresses"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-5000:] + built.stderr
    return folder / "out" / "libigf_simt_addresses.so"


@pytest.fixture(scope="module")
def hits(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Hits:
    """Runs all cases, which must end without a bad access, and returns the lines they ran."""
    counters = tmp_path_factory.mktemp("counters")
    result = run_lane([str(library)], counters)
    assert result.returncode == 0, result.stdout + result.stderr
    return line_counts(counters)


def run_lane(arguments: list[str], counters: Path) -> subprocess.CompletedProcess[str]:
    """The address lane in a process with libasan in front; gcov's counters go below `counters`."""
    asan = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "LD_PRELOAD": asan.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "GCOV_PREFIX": str(counters),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "python_tests.kernels.address_lane", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def line_counts(counters: Path) -> Hits:
    """What gcov makes of the counters; a line in several instances of a template counts once, with the largest."""
    found: Hits = defaultdict(dict)
    for data in counters.rglob("*.gcda"):
        built = Path("/") / data.relative_to(counters)  # where the compiler left the notes that go with it
        data.with_suffix(".gcno").symlink_to(built.with_suffix(".gcno"))
        command = ["gcov", "--json-format", "--stdout", data.name]
        text = subprocess.run(command, cwd=data.parent, capture_output=True, check=True).stdout
        for file in json.loads(gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text)["files"]:
            lines = found[file["file"].partition("csrc/")[2]]
            for line in file["lines"]:
                number = line["line_number"]
                lines[number] = max(lines.get(number, 0), line["count"])
    return found


@pytest.mark.parametrize("index", [5, 6])
def test_an_index_past_a_local_array_is_found(library: Path, tmp_path: Path, index: int) -> None:
    result = run_lane([str(library), str(index)], tmp_path)
    if index == 5:
        assert "1." in result.stdout, result.stderr
    else:
        assert result.returncode != 0
        assert "AddressSanitizer: stack-buffer-" in result.stderr
        assert "local_array_cuda.cu" in result.stderr


SOURCES = sorted(
    str(path.relative_to(ROOT / "csrc"))
    for pattern in ("ops/*/*_cuda.cu", "ops/*/*.cuh", "device/*.cuh") for path in (ROOT / "csrc").glob(pattern)
)


@pytest.mark.parametrize("source", SOURCES)
def test_cases_reach_the_kernel(hits: Hits, source: str) -> None:
    """At least 95 of 100 lines of a kernel's source run."""
    lines = hits[source]
    if not lines and source.endswith(".cuh"):
        return  # declarations alone, or words of which the emulator has its own half
    assert lines, f"{source}: no counters; was the library built from it?"
    missed = sorted(number for number, count in lines.items() if count == 0)
    assert len(missed) <= (1 - COVERED_AT_LEAST) * len(lines), (
        f"{source}: of {len(lines)} lines these never ran: {missed}"
    )
