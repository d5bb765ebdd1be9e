"""masked_whiten: values worked out by hand, the moments it must leave, and what every op shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage


def numbers(new: New, *shape: int, p: float = 0.7, scale: float = 1.0, shift: float = 0.0) -> Inputs:
    return {"x": new(*shape, scale=scale, shift=shift), "loss_mask": new.mask(*shape, p=p)}


def poison(inputs: Inputs) -> Inputs | None:
    if bool(inputs["loss_mask"].all()):
        return None
    return {**inputs, "x": inputs["x"].masked_fill(~inputs["loss_mask"], float("nan"))}


class TestMaskedWhiten(OpSuite):
    name = "masked_whiten"
    op = staticmethod(ops.masked_whiten)
    oracle = staticmethod(ops.masked_whiten_oracle)
    yardstick = staticmethod(ops.masked_whiten_oracle)
    dtypes = (torch.float32,)
    poison = staticmethod(poison)
    cases = (
        Case("several blocks", lambda new: numbers(new, 9, 1111)),
        Case("mean kept", lambda new: numbers(new, 9, 50, shift=3.0), {"shift_mean": False}),
        Case("far from zero", lambda new: numbers(new, 300, shift=1000.0)),
        Case("large eps", lambda new: numbers(new, 2, 3, 5), {"eps": 0.5}),
        Case("one counted", lambda new: {"x": new(3), "loss_mask": torch.tensor([False, True, False])}),
        Case("nothing counted", lambda new: numbers(new, 4, 5, p=-1.0)),
        Case("empty", lambda new: numbers(new, 0, 5)),
    )
    sabotages = (
        Sabotage("mask ignored", lambda i: {**i, "loss_mask": torch.ones_like(i["loss_mask"])}),
        Sabotage("one element unmasked", lambda i: {**i, "x": torch.where(
            torch.arange(i["x"].numel()).reshape(i["x"].shape) == 0, 9.0, i["x"])}),
    )
    bad_calls = (
        BadCall("shape", lambda i: {**i, "loss_mask": i["loss_mask"][1:]}, ValueError, r"\(9, 1111\).*\(8, 1111\)"),
        BadCall("dtype", lambda i: {**i, "x": i["x"].double()}, TypeError, "float32, got float64"),
        BadCall("eps", lambda i: {**i, "eps": 0.0}, ValueError, "eps must be above 0, got 0.0"),
        BadCall("grad", lambda i: {**i, "x": i["x"].requires_grad_()}, ValueError, "detach"),
    )


def test_four_numbers_by_hand() -> None:
    """Counted are 1, 2, 6: mean 3, biased variance (4 + 1 + 9) / 3 = 14 / 3."""
    x = torch.tensor([1.0, float("nan"), 2.0, 6.0])
    loss_mask = torch.tensor([True, False, True, True])
    deviation = math.sqrt(14 / 3)
    expected = torch.tensor([-2 / deviation, 0.0, -1 / deviation, 3 / deviation])
    # Results below 2 in float32: one rounding of the factor and one of the product.
    torch.testing.assert_close(ops.masked_whiten(x, loss_mask), expected, rtol=3e-7, atol=0)
    kept = torch.where(loss_mask, expected + 3, 0)
    torch.testing.assert_close(ops.masked_whiten(x, loss_mask, shift_mean=False), kept, rtol=3e-7, atol=0)


def test_leaves_mean_zero_and_variance_one() -> None:
    torch.manual_seed(1)
    x, loss_mask = torch.randn(64, 257) * 7 + 40, torch.rand(64, 257) < 0.5
    counted = ops.masked_whiten(x, loss_mask)[loss_mask].double()
    # About 8,000 results, each rounded by at most 1.2e-7 (below 2) or a little more: their mean is off by less still.
    assert abs(counted.mean()) < 1e-6
    assert abs(counted.var(unbiased=False) - 1) < 1e-6


def test_bits_do_not_depend_on_threads() -> None:
    torch.manual_seed(2)
    x, loss_mask = torch.randn(50_000), torch.rand(50_000) < 0.5
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.masked_whiten(x, loss_mask))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(results[0], other) for other in results[1:])


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        x, mask = torch.empty(4, 6, device="cuda"), torch.empty(4, 6, device="cuda", dtype=torch.bool)
        if "masked_whiten" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="masked_whiten: has no CUDA kernel"):
                ops.masked_whiten(x, mask)
            return
        white = ops.masked_whiten(x, mask)
        assert (white.device.type, tuple(white.shape)) == ("cuda", (4, 6))
