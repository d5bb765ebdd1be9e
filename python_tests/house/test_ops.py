"""One stem an op: contract, registration, Python face, test and benchmark are found by one name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructgpt_fast import simt

from .tree import PACKAGE, ROOT, files_with

OPS = (
    "attention", "attention_decode", "layer_norm", "bias_gelu", "embedding", "linear_cross_entropy", "token_logprobs",
    "adamw", "grad_norm", "gae", "masked_whiten", "ppo_loss", "ranking_loss", "sample_token",
    "invariant_linear",
)
RAW_DEVICE_WORDS = re.compile(
    r"\basm\b|__(shared|global|device|launch_bounds)__|<<<|\b(thread|block|grid)(Idx|Dim)\b"
    r"|__(sync|shfl|ballot|threadfence)|#include <cuda")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("where", [
    "csrc/ops/{op}/{op}.h", "csrc/ops/{op}/{op}_op.cpp", "instructgpt_fast/ops/{op}.py",
    "python_tests/ops/test_{op}.py", "benchmarks/ops/bench_{op}.py",
])
def test_the_files_of_an_op(op: str, where: str) -> None:
    assert (ROOT / where.format(op=op)).is_file(), f"{op} lacks {where.format(op=op)}"


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_oracle(op: str) -> None:
    text = (PACKAGE / "ops" / f"{op}.py").read_text(encoding="utf-8")
    assert f"def {op}_oracle(" in text
    assert re.search(rf"^def {op}\(", text, re.MULTILINE)


@pytest.mark.parametrize("op", OPS)
def test_an_op_has_its_kernels_and_their_tests(op: str) -> None:
    """An op may have several kernels, each with a test: <op>_<kernel>_cuda.cu and test_<op>_<kernel>.py."""
    folder = f"csrc/ops/{op}/{op}"
    for where in (f"{folder}*_cuda.cu", f"{folder}_cuda_op.cpp", f"python_tests/kernels/test_{op}*.py"):
        assert list(ROOT.glob(where)), f"{op} lacks {where}"


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
def test_the_emulator_has_every_operator_that_the_kernels_serve() -> None:
    """What <op>_cuda_op.cpp registers for GPUs is registered for the emulator: both come from one macro."""
    registered = set()
    for path in (ROOT / "csrc" / "ops").glob("*/*_cuda_op.cpp"):
        text = path.read_text(encoding="utf-8")
        assert "STABLE_TORCH_LIBRARY_IMPL(instructgpt_fast, IGF_DEVICE_KEY, m)" in text, path
        registered |= set(re.findall(r'm\.impl\("(\w+)"', text))
    assert registered <= simt.operators(), f"not emulated: {sorted(registered - simt.operators())}"


def test_kernels_know_no_torch_and_no_raw_device_words() -> None:
    for path in [*files_with(".cu", under=ROOT / "csrc"), *files_with(".cuh", under=ROOT / "csrc" / "ops")]:
        text = path.read_text(encoding="utf-8")
        assert "torch" not in "".join(re.findall(r"#include.*", text)), f"{path} includes torch"
        assert not RAW_DEVICE_WORDS.search(text), f"{path}: device words belong in csrc/device"


def test_cpu_loops_know_no_torch() -> None:
    for path in (ROOT / "csrc" / "ops").glob("*/*_cpu.cpp"):
        includes = "".join(re.findall(r"#include.*", path.read_text(encoding="utf-8")))
        assert "torch/" not in includes, f"{path.relative_to(ROOT)} includes torch"


def unused_folders() -> list[Path]:
    return [p for p in (ROOT / "csrc" / "ops").iterdir() if p.is_dir() and p.name not in OPS]


def test_every_op_folder_is_listed_here() -> None:
    assert not unused_folders(), f"name these in OPS: {unused_folders()}"
