"""An op without a kernel for a device says so by name, with what to do; tensors on two devices are refused."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.ops import test_gae, test_masked_whiten, test_ppo_loss, test_ranking_loss, test_sample_token
from python_tests.ops.suite import New, OpSuite

SUITES: tuple[type[OpSuite], ...] = (
    test_gae.TestGae, test_masked_whiten.TestMaskedWhiten, test_ppo_loss.TestPpoLoss,
    test_ranking_loss.TestRankingLoss, test_sample_token.TestSampleToken,
)


def call_on(suite: type[OpSuite], device: str, keep: int = 0) -> None:
    """Make the first case's call with its tensors, but for the first `keep`, on a pretended device."""
    case = suite.cases[0]
    inputs = case.inputs(New(torch.float32))
    with torch._subclasses.FakeTensorMode():
        moved = {
            name: torch.empty(value.shape, dtype=value.dtype, device="cpu" if place < keep else device)
            for place, (name, value) in enumerate(inputs.items())
        }
        suite.op(**moved, **case.options)


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_cuda_without_a_kernel_names_the_op_and_the_remedy(
    suite: type[OpSuite], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_library, "CUDA_OPERATORS", frozenset())
    with pytest.raises(BackendError, match=rf"^{suite.name}: has no CUDA kernel .*\.cpu\(\).*doctor"):
        call_on(suite, "cuda")


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_a_device_of_another_kind_is_refused(suite: type[OpSuite]) -> None:
    with pytest.raises(BackendError, match=rf"^{suite.name}: .*xpu"):
        call_on(suite, "xpu")


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_two_devices_are_refused(suite: type[OpSuite]) -> None:
    with pytest.raises(ValueError, match=rf"^{suite.name}: .*one device"):
        call_on(suite, "cuda", keep=1)
