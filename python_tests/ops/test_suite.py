"""The suite itself: it passes a correct op, and each way of being wrong makes the check meant for it fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from python_tests.ops.suite import BadCall, Case, New, OpSuite, Sabotage


@torch.library.custom_op("suite_self_test::scale_rows", mutates_args=())
def raw(x: Tensor, weight: Tensor) -> Tensor:
    return x * weight[:, None]


@raw.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


class ScaleRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return raw(x.contiguous(), weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        return raw(grad.contiguous(), weight), (grad.float() * x.float()).sum(1).to(weight.dtype)


def scale_rows(x: Tensor, weight: Tensor) -> Tensor:
    if x.shape[0] != weight.shape[0]:
        raise ValueError(f"scale_rows: one weight a row, got {x.shape[0]} rows and {weight.shape[0]} weights")
    return ScaleRows.apply(x, weight)


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return x * weight[:, None]


class TestScaleRows(OpSuite):
    """A correct op passes everything."""

    name = "scale_rows"
    namespace = "suite_self_test"
    op = staticmethod(scale_rows)
    oracle = staticmethod(plain)
    yardstick = staticmethod(plain)
    differentiable = ("x", "weight")
    cases = (
        Case("rows", lambda new: {"x": new(4, 6), "weight": new(4)}),
        Case("empty", lambda new: {"x": new(0, 6), "weight": new(0)}),
    )
    sabotages = (Sabotage("rows swapped", lambda i: {**i, "weight": i["weight"].flip(0)}),)
    bad_calls = (BadCall("weights", lambda i: {**i, "weight": i["weight"][1:]}, ValueError, "4 rows and 3 weights"),)


ROWS = TestScaleRows.cases[0]
F32 = torch.float32


def suite_with(**attributes: Any) -> OpSuite:
    return type("Broken", (TestScaleRows,), attributes)()


def test_a_wrong_output_or_gradient_is_found() -> None:
    for wrong in (lambda x, weight: scale_rows(x, weight) * 1.01,
                  lambda x, weight: scale_rows(x.detach(), weight)):
        with pytest.raises(AssertionError, match=r"output 0|grad x"):
            suite_with(op=staticmethod(wrong)).test_outputs_and_gradients(ROWS, F32)


def test_reading_past_a_stride_is_found() -> None:
    def blind(x: Tensor, weight: Tensor) -> Tensor:
        return scale_rows(x.as_strided(x.shape, (x.shape[1], 1)), weight)

    suite = suite_with(op=staticmethod(blind))
    suite.test_outputs_and_gradients(ROWS, F32)
    with pytest.raises(AssertionError):
        suite.test_strided_inputs(ROWS, F32)


def test_randomness_is_found() -> None:
    noisy = suite_with(op=staticmethod(lambda x, weight: scale_rows(x, weight) + torch.rand(())))
    with pytest.raises(AssertionError, match="differs"):
        noisy.test_equal_bits_on_repeat(ROWS, F32)


def test_a_leak_from_behind_the_mask_is_found() -> None:
    def poison(inputs: dict[str, Any]) -> dict[str, Any]:
        return {**inputs, "x": inputs["x"].index_fill(0, torch.tensor([1]), float("nan"))}

    with pytest.raises(AssertionError, match="differs"):
        suite_with(poison=staticmethod(poison)).test_nan_behind_the_mask(ROWS, F32)


def test_an_op_that_is_only_plain_torch_is_found() -> None:
    with pytest.raises(AssertionError, match="called no op"):
        suite_with(op=staticmethod(plain)).test_opcheck(ROWS, F32)


def test_a_graph_break_is_found() -> None:
    def breaking(x: Tensor, weight: Tensor) -> Tensor:
        return scale_rows(x, weight) if x.sum().item() < 1e9 else x

    with pytest.raises((torch._dynamo.exc.Unsupported, torch._dynamo.exc.UserError)):
        suite_with(op=staticmethod(breaking)).test_compile_without_graph_breaks(ROWS, F32)


def test_blind_checks_are_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="passed as correct"):
        suite_with().test_sabotage_is_found(Sabotage("nothing", lambda i: i), F32)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        loose = {"rms_factor": 1e9, "max_factor": 1e9, "why_looser": "to be blind"}
        suite_with(looser=lambda *_: loose).test_broken_outputs_are_found(ROWS, torch.bfloat16)
    for missing in ({"sabotages": ()}, {"bad_calls": ()}, {"cases": (ROWS,)}):
        with pytest.raises(AssertionError, match="no "):
            suite_with(**missing).test_nothing_was_left_out()


def test_a_wrong_message_is_found() -> None:
    def nameless(x: Tensor, weight: Tensor) -> Tensor:
        raise ValueError("4 rows and 3 weights")

    with pytest.raises(AssertionError):
        suite_with(op=staticmethod(nameless)).test_error_messages(TestScaleRows.bad_calls[0])


def test_inputs_are_the_same_each_time() -> None:
    assert torch.equal(New(F32)(3, 4), New(F32)(3, 4))
    assert New(torch.float16)(2).dtype == torch.float16
