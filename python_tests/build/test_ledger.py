"""The kernel ledger: what it says about the kernels, that the tools are read right, and that it is up to date."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ledger import resources
from instructgpt_fast.doctor import build_info
from instructgpt_fast.ops import _library
from python_tests.build import ROOT

REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5scalePf' for 'sm_80'
ptxas info    : Function properties for _Z5scalePf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 1024 bytes smem, 360 bytes cmem[0]
ptxas info    : Compiling entry function '_Z4copyPf' for 'sm_80'
ptxas info    : Function properties for _Z4copyPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 360 bytes cmem[0]
"""
COPY = {"registers": 10, "shared_bytes": 0, "local_bytes": 0}
SCALE = {"registers": 40, "shared_bytes": 1024, "local_bytes": 8}

OPS = sorted(resources.sources())


@pytest.mark.parametrize("op", OPS)
def test_every_kernel_source_has_its_ledger_without_local_memory(op: str) -> None:
    """No spilled register and no array outside of registers, for every architecture."""
    ledger = resources.read(resources.LEDGER / f"{op}.json")
    assert ledger, f"{op} has no kernel"
    for kernel, by_arch in ledger.items():
        assert set(by_arch) == set(resources.ARCHS)
        local = {arch: used["local_bytes"] for arch, used in by_arch.items() if used["local_bytes"]}
        assert not local, f"{kernel} uses local memory: {local}"


def test_no_ledger_without_its_source() -> None:
    assert sorted(path.stem for path in resources.LEDGER.glob("*.json")) == OPS


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt is not installed")
def test_reading_ptxas() -> None:
    assert resources.parsed(REPORT) == {"copy": {"80": COPY}, "scale": {"80": SCALE}}


def test_an_op_may_have_several_sources() -> None:
    assert len(resources.sources()["attention"]) > 1
    assert resources.merged([{"scale": {"80": SCALE}}, {"copy": {"80": COPY}, "scale": {"80": SCALE}}]) == {
        "copy": {"80": COPY}, "scale": {"80": SCALE}}
    with pytest.raises(SystemExit, match="two kernels are called scale"):
        resources.merged([{"scale": {"80": SCALE}}, {"scale": {"80": COPY}}])


def test_differences_are_found() -> None:
    expected = {"copy": {"80": COPY}, "scale": {"80": SCALE}}
    assert resources.differences(expected, expected, {"80"}) == []
    assert resources.differences(expected, {"copy": {"80": COPY}, "cast": {"80": COPY}}, {"80"}) == [
        "cast is new",
        "scale is gone",
    ]
    for key in COPY:
        more = {"copy": {"80": {**COPY, key: COPY[key] + 1}}, "scale": {"80": SCALE}}
        found = resources.differences(expected, more, {"80"})
        assert found == [f"copy on sm_80: {key} {COPY[key]} -> {COPY[key] + 1}"]
    assert resources.differences(expected, expected, {"80", "120"}) == [
        "copy is new on sm_120",
        "scale is new on sm_120",
    ]


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "nvcc_version", lambda: "13.0")
    by_arch = {arch: {**SCALE, "registers": number} for number, arch in enumerate(resources.ARCHS)}
    found = {"copy": dict.fromkeys(resources.ARCHS, COPY), "scale": by_arch}
    (tmp_path / "x.json").write_text(resources.written(found))
    assert resources.read(tmp_path / "x.json") == found


def test_the_built_library_is_as_the_ledger_says() -> None:
    """Every kernel that is shipped, on every architecture of this build: more registers, shared or local memory than
    committed is found here, without compiling anything."""
    cuda = build_info()["cuda"]
    if not cuda["build"]:
        pytest.skip(f"CUDA is not in this build: {cuda['why']}")
    if resources.cuobjdump() is None or shutil.which("c++filt") is None:
        pytest.skip("cuobjdump (of the wheel nvidia-cuda-cuobjdump) or c++filt is not installed")
    ledgers = {op: json.loads((resources.LEDGER / f"{op}.json").read_text())["nvcc"] for op in OPS}
    others = {op: version for op, version in ledgers.items() if version != cuda["version"]}
    if others:
        pytest.skip(f"this build is of nvcc {cuda['version']}, the ledger is not: {others}")
    expected: resources.Resources = {}
    for op in OPS:
        expected |= resources.read(resources.LEDGER / f"{op}.json")
    found = resources.in_library(_library.LIBRARY_DIR / "libigf_cuda.so")
    found = {name: by_arch for name, by_arch in found.items() if not name.startswith("microkernels::")}
    built = {arch.removesuffix("+PTX") for arch in cuda["archs"]}
    lines = resources.differences(expected, found, built & set(resources.ARCHS))
    assert not lines, "\n".join([*lines, "if it is meant so: `python -m benchmarks.ledger.resources`, and commit"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_the_ledger_is_up_to_date() -> None:
    """The same by compiling every source for every architecture, those included that no build has by default."""
    committed = json.loads((resources.LEDGER / f"{OPS[0]}.json").read_text())["nvcc"]
    if resources.nvcc_version() != committed:
        pytest.skip(f"the ledger is of nvcc {committed}, this is {resources.nvcc_version()}")
    check = [sys.executable, "-m", "benchmarks.ledger.resources", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
