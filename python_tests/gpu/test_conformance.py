"""Every op's cases on a GPU; and on a machine without one, that this test would find a kernel that is wrong."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.errors import BackendError
from python_tests.gpu.conformance import check_raw_ops, failures, suites
from python_tests.ops.suite import OpSuite

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SUITES = suites()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", [pytest.param(d, marks=on_gpu, id=str(d).removeprefix("torch.")) for d in DTYPES])
@pytest.mark.parametrize("name", SUITES)
def test_every_case_on_the_gpu(name: str, dtype: torch.dtype) -> None:
    suite = SUITES[name]
    if dtype not in suite.dtypes:
        pytest.skip(f"{name} does not serve {dtype}")
    try:
        wrong = failures(suite, dtype, "cuda")
    except BackendError as error:
        pytest.skip(str(error))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [pytest.param(name, marks=on_gpu) for name in SUITES])
def test_raw_ops_on_the_gpu(name: str) -> None:
    try:
        assert check_raw_ops(SUITES[name], "cuda") > 0
    except BackendError as error:
        pytest.skip(str(error))


def broken_suite(suite: type[OpSuite]) -> type[OpSuite]:
    """The same with an op whose results are a little off."""

    def off(*arguments: object, **options: object) -> object:
        result = suite.op(*arguments, **options)
        return result * 1.01 if isinstance(result, torch.Tensor) else tuple(part * 1.01 for part in result)

    return type("Broken", (suite,), {"op": staticmethod(off), "cases": suite.cases[:2]})


def test_all_ops_are_found() -> None:
    """Every op with a test file has a suite here, and only ops have."""
    assert {"layer_norm", "sample_token", "adamw", "ppo_loss"} <= {suite.name for suite in SUITES.values()}
    assert "attention (TestAttention)" in SUITES and "attention (Attention)" not in SUITES


def test_a_wrong_kernel_is_found_and_a_right_one_passes() -> None:
    """The same code with the CPU in the GPU's place."""
    suite = next(suite for suite in SUITES.values() if suite.name == "layer_norm")
    few = type("Few", (suite,), {"cases": suite.cases[:2]})
    assert failures(few, torch.float32, "cpu") == []
    wrong = failures(broken_suite(suite), torch.float32, "cpu")
    assert len(wrong) == 2 and all("rms error" in line for line in wrong)
    assert check_raw_ops(few, "cpu") > 0
