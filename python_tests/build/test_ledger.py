"""The kernel ledger: what it says about the committed kernels, that ptxas is read right, and that it is up to date."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from benchmarks.ledger import resources
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


def test_every_kernel_source_has_its_ledger_without_spills() -> None:
    assert resources.sources()
    for op in resources.sources():
        ledger = json.loads((resources.LEDGER / f"{op}.json").read_text())
        assert set(ledger["resources"]) == {f"sm_{arch}" for arch in resources.ARCHS}
        for arch, kernels in ledger["resources"].items():
            assert kernels, f"{op} has no kernel for {arch}"
            assert not [name for name, used in kernels.items() if used["spill_bytes"]], f"{op} spills on {arch}"


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt is not installed")
def test_reading_ptxas() -> None:
    assert resources.parsed(REPORT) == {
        "copy": {"registers": 10, "shared_bytes": 0, "spill_bytes": 0},
        "scale": {"registers": 40, "shared_bytes": 1024, "spill_bytes": 16},
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_the_ledger_is_up_to_date() -> None:
    committed = json.loads((resources.LEDGER / "layer_norm.json").read_text())["nvcc"]
    if resources.nvcc_version() != committed:
        pytest.skip(f"the ledger is of nvcc {committed}, this is {resources.nvcc_version()}")
    check = [sys.executable, "-m", "benchmarks.ledger.resources", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
