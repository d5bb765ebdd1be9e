"""The built libraries: stable ABI, no dependence on one torch or on CUDA, every operator with its executions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_abi_audit import inspect_extension

from instructgpt_fast.doctor import build_info
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.build import ROOT

import discover

CSRC = ROOT / "csrc"
LIBRARIES = sorted(_library.LIBRARY_DIR.glob("*.so"))
# Runs on devices alone, to check them: csrc/microkernels.
OF_DEVICES = {"microkernel"}
OPERATORS = sorted(
    name.removeprefix("instructgpt_fast::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("instructgpt_fast::") and name.removeprefix("instructgpt_fast::") not in OF_DEVICES
)


def stem(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("library", LIBRARIES, ids=stem)
def test_stable_abi(library: Path) -> None:
    """Only the stable part of LibTorch is used, none of it newer than 2.11."""
    verdict = inspect_extension(library).torch
    assert verdict.stable, verdict.unstable_symbols
    assert verdict.unknown_shim_symbols == ()
    assert verdict.min_torch_version == "2.11.0"


@pytest.mark.parametrize("library", LIBRARIES, ids=stem)
def test_needs_no_cuda_and_no_path(library: Path) -> None:
    """libtorch by name alone: no rpath, no libcudart, no libcuda, no libc10."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    lines = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].rstrip("]") for line in lines.splitlines() if "(NEEDED)" in line}
    assert "libtorch.so" in needed
    assert not [name for name in needed if "cuda" in name or "c10" in name or name.startswith("libtorch_")]
    assert "PATH)" not in lines


def test_every_operator_runs_on_the_cpu_and_is_traced() -> None:
    assert OPERATORS
    for name in OPERATORS:
        assert _library.has_kernel(name, "cpu"), f"{name} has no CPU execution"
        assert _library.has_kernel(name, "meta"), f"{name} has no fake"


def test_cuda_executions_are_registered() -> None:
    """Also here, where torch may know no CUDA: what has a CUDA source is registered when nvcc was there."""
    if not build_info()["cuda"]["build"]:
        pytest.skip(f"CUDA is not in this build: {build_info()['cuda']['why']}")
    with_kernel = {path.parent.name for path in CSRC.glob("ops/*/*_cuda.cu")}
    assert "layer_norm" in with_kernel
    for op in with_kernel:
        assert op in _library.CUDA_OPERATORS, f"{op} has a kernel and no registration"


def test_cuda_is_built_where_nvcc_is_found() -> None:
    """The choice this build wrote down is the one that would be made now, or was made by a switch."""
    cuda = build_info()["cuda"]
    if discover.find_nvcc()[0] is not None:
        assert cuda["build"] or cuda["why"] == "INSTRUCTGPT_FAST_CUDA=OFF", f"nvcc is here, not used: {cuda['why']}"


def test_a_library_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"libigf_cpu.so does not exist; .*pip install"):
        _library.load(tmp_path / "libigf_cpu.so")


def test_a_second_copy_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "libigf_cpu.so"
    shutil.copy(_library.LIBRARY_DIR / "libigf_cpu.so", copy)
    with pytest.raises(BackendError, match="already loaded"):
        _library.load(copy)


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libother.so").write_text("not a library")
    with pytest.raises(BackendError, match="did not load"):
        _library.load(tmp_path / "libother.so")


def test_import_is_light_and_ops_load_in_a_fresh_process() -> None:
    """`import instructgpt_fast` does not import torch; a malformed schema would end this process and not the tests'."""
    program = (
        "import sys, instructgpt_fast\n"
        "assert not {'torch', 'tokenizers', 'tyro'} & set(sys.modules), 'import is not light'\n"
        "import instructgpt_fast.ops\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
