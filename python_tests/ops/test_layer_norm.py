"""layer_norm: the common suite, values by hand, float32 parameters beside 16-bit rows, the traced CUDA execution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library, layer_norm, layer_norm_oracle
from python_tests.accuracy import compare
from python_tests.ops.suite import BadCall, Case, New, OpSuite, Sabotage


def plain(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor | None = None, eps: float = 1e-5
) -> Any:
    """PyTorch's own, as a model without fusion would call it."""
    summed = x if residual is None else x + residual
    y = F.layer_norm(summed, summed.shape[-1:], weight, bias, eps)
    return y if residual is None else (y, summed)


def rows(*shape: int, residual: bool = False, scale: float = 1.0, shift: float = 0.0) -> Any:
    def draw(new: New) -> dict[str, torch.Tensor]:
        inputs = {"x": new(*shape, scale=scale, shift=shift), "weight": new(shape[-1]), "bias": new(shape[-1])}
        return {**inputs, "residual": new(*shape)} if residual else inputs

    return draw


class TestLayerNorm(OpSuite):
    name = "layer_norm"
    op = staticmethod(layer_norm)
    oracle = staticmethod(layer_norm_oracle)
    yardstick = staticmethod(plain)
    differentiable = ("x", "weight", "bias", "residual")
    cases = (
        Case("rows", rows(7, 48)),
        Case("residual", rows(2, 5, 64, residual=True)),
        Case("odd width", rows(3, 37, residual=True)),
        Case("one element", rows(1, 5)),
        Case("one row of one dimension", rows(96)),
        Case("far from zero", rows(4, 128, shift=8.0)),
        Case("other eps", rows(4, 32, scale=0.01), {"eps": 1e-3}),
        # f32 forward and backward, then f32 backward: static and dynamic shared memory pass 48 KiB only together.
        Case("shared memory of 48 KiB", rows(2, 6000)),
        Case("shared memory of 48 KiB, backward", rows(2, 4000)),
        Case("empty", rows(0, 48)),
        Case("empty with residual", rows(0, 48, residual=True)),
    )
    sabotages = (
        Sabotage("bias left out", lambda i: {**i, "bias": i["bias"] * 0}),
        Sabotage("weight shifted by one", lambda i: {**i, "weight": i["weight"].roll(1)}),
        Sabotage("a row normalised with its neighbour's values", lambda i: {**i, "x": i["x"].roll(1, 0)}),
    )
    bad_calls = (
        BadCall("x is no tensor", lambda i: {**i, "x": 1.0}, TypeError, "torch.Tensor, got float"),
        BadCall("x in float64", lambda i: {**i, "x": i["x"].double()}, TypeError, "bfloat16, float16, got float64"),
        BadCall("weight in another 16-bit dtype", lambda i: {**i, "weight": i["weight"].half()}, TypeError, "weight"),
        BadCall("bias in another dtype than weight", lambda i: {**i, "bias": i["bias"].half()}, TypeError, "bias"),
        BadCall("weight of another width", lambda i: {**i, "weight": i["weight"][:-1]}, ValueError, r"\(47,\)"),
        BadCall("bias with two dimensions", lambda i: {**i, "bias": i["bias"][None]}, ValueError, r"\(1, 48\)"),
        BadCall("residual of another shape", lambda i: {**i, "residual": i["x"][:-1]}, ValueError, "residual"),
        BadCall("residual of another dtype", lambda i: {**i, "residual": i["x"].half()}, TypeError, "residual"),
        BadCall("eps of zero", lambda i: {**i, "eps": 0.0}, ValueError, "eps must be above 0, got 0.0"),
        BadCall("scalar x", lambda i: {**i, "x": i["x"][0, 0]}, ValueError, "at least 1 dimension"),
        BadCall("no features", lambda i: {k: v[..., :0] for k, v in i.items()}, ValueError, "at least one feature"),
        BadCall("two devices", lambda i: {**i, "bias": i["bias"].to("meta")}, ValueError, "one device"),
    )


def test_values_by_hand() -> None:
    """Rows 1 2 3 and 0 0 6: means 2 and 2, variances 2/3 and 8."""
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    y = layer_norm(x, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, 1.0]), eps=1e-12)
    a, b = math.sqrt(3 / 2), 1 / math.sqrt(8)
    expected = torch.tensor([[-a, 0.0, 3 * a + 1], [-2 * b, -4 * b, 12 * b + 1]])
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)  # a few ulp of float32 around 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_parameters_beside_16_bit_rows(dtype: torch.dtype) -> None:
    new = New(dtype)
    inputs = {"x": new(6, 40), "weight": new.float32(40), "bias": new.float32(40), "residual": new(6, 40)}
    y, summed = layer_norm(**inputs)
    assert y.dtype == summed.dtype == dtype
    oracle = layer_norm_oracle(**{name: value.double() for name, value in inputs.items()})
    compare(y, oracle[0], plain(**inputs)[0])
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    layer_norm(**leaves)[0].sum().backward()
    assert leaves["weight"].grad.dtype == torch.float32
    assert leaves["x"].grad.dtype == dtype
    assert torch.equal(leaves["x"].grad, leaves["residual"].grad)


def test_only_one_output_used() -> None:
    """A gradient that reaches only the sum, or only y, is complete without the other."""
    new = New(torch.float32)
    x, residual, weight, bias = new(3, 8).requires_grad_(), new(3, 8), new(8), new(8)
    layer_norm(x, weight, bias, residual=residual)[1].sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    x.grad = None
    layer_norm(x, weight, bias, residual=residual)[0].square().sum().backward()
    alone = (x.detach() + residual).requires_grad_()
    layer_norm(alone, weight, bias).square().sum().backward()
    assert torch.equal(x.grad, alone.grad)


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        x, weight = torch.empty(4, 6, 64, device="cuda", dtype=torch.bfloat16), torch.empty(64, device="cuda")
        if "layer_norm" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="layer_norm: has no CUDA kernel"):
                layer_norm(x, weight, weight)
            return
        y, summed = layer_norm(x, weight, weight, residual=x)
        assert (y.device.type, y.dtype, tuple(y.shape)) == ("cuda", torch.bfloat16, (4, 6, 64))
        raw = torch.ops.instructgpt_fast.layer_norm(x, None, weight, weight, 1e-5)
        assert [tuple(t.shape) for t in raw] == [(4, 6, 64), (0,), (24,), (24,)]
        dx, dweight, dbias = torch.ops.instructgpt_fast.layer_norm_backward(y, None, summed, weight, raw[2], raw[3])
        assert (dx.dtype, dweight.dtype, tuple(dbias.shape)) == (torch.bfloat16, torch.float32, (64,))
