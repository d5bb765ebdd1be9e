"""invariant_linear against its float64 oracle; a row's bits beside any others, in any number, at any place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from instructgpt_fast.ops.invariant_linear import invariant_linear, invariant_linear_oracle
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def layer(rows: int, inputs: int, outputs: int, *, bias: bool = True) -> Callable[[New], Inputs]:
    def draw(new: New) -> Inputs:
        drawn = {"x": new(rows, inputs), "weight": new(outputs, inputs, scale=inputs**-0.5 if inputs else 1.0)}
        return {**drawn, "bias": new(outputs)} if bias else drawn

    return draw


def into_float32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Calls with a buffer for the result where `buffered`; it holds NaN before."""
    def call(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, buffered: bool = False, **rest: Any) -> Tensor:
        if not buffered:
            return function(x, weight, bias, **rest)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        out = torch.full((x.shape[0], weight.shape[0]), torch.nan, dtype=dtype, device=x.device)
        assert function(x, weight, bias, out=out) is out
        return out

    return call


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, buffered: bool = False) -> Tensor:
    """PyTorch's linear layer, in float32 where nothing is rounded to 16 bits."""
    if not buffered:
        return F.linear(x, weight, bias)
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float())


class TestInvariantLinear(OpSuite):
    name = "invariant_linear"
    op = staticmethod(into_float32(invariant_linear))
    oracle = staticmethod(into_float32(invariant_linear_oracle))
    yardstick = staticmethod(plain)
    cases = (
        Case("five rows", layer(5, 48, 33)),
        Case("one row", layer(1, 64, 50)),
        Case("without bias", layer(3, 32, 17, bias=False)),
        Case("into float32", layer(7, 80, 20), {"buffered": True}),
        Case("inputs in no whole vectors", layer(6, 37, 19)),
        Case("inputs of several blocks", layer(3, 2100, 9)),
        Case("many rows", layer(70, 40, 24)),
        Case("rows and outputs of several tasks", layer(150, 33, 130), {"buffered": True}),
        Case("one input", layer(4, 1, 6)),
        Case("one output", layer(9, 96, 1)),
        Case("no inputs", layer(4, 0, 6)),
        Case("no rows", layer(0, 16, 6)),
        Case("no outputs", layer(4, 16, 0)),
    )
    sabotages = (
        Sabotage("bias left out", lambda i: {**i, "bias": i["bias"] * 0}),
        Sabotage("weight shifted by an output", lambda i: {**i, "weight": i["weight"].roll(1, 0)}),
        Sabotage("last input lost", lambda i: {**i, "x": i["x"] * (torch.arange(i["x"].shape[1]) < 47)}),
        Sabotage("rows swapped", lambda i: {**i, "x": i["x"].flip(0)}),
    )
    bad_calls = (
        BadCall("a vector", lambda i: {**i, "x": i["x"][0]}, ValueError, "x must have 2 dimensions"),
        BadCall("integers", lambda i: {**i, "x": i["x"].long()}, TypeError, "x must have dtype float32, .*got int64"),
        BadCall("weight's dtype", lambda i: {**i, "weight": i["weight"].half()}, TypeError, "x's dtype"),
        BadCall("weight's inputs", lambda i: {**i, "weight": i["weight"][:, 1:]}, ValueError,
                r"\(33, 48\).*\(33, 47\)"),
        BadCall("bias's dtype", lambda i: {**i, "bias": i["bias"].half()}, TypeError, "bias must have dtype float32"),
        BadCall("bias's length", lambda i: {**i, "bias": i["bias"][1:]}, ValueError, r"\(33,\).*\(32,\)"),
        BadCall("gradient", lambda i: {**i, "weight": i["weight"].requires_grad_()}, ValueError, "torch.no_grad"),
    )


@pytest.mark.parametrize("out, error, match", [
    (torch.empty(5, 32), ValueError, r"out must have shape \(5, 33\)"),
    (torch.empty(5, 66)[:, ::2], ValueError, r"contiguous, got strides \(66, 2\)"),
    (torch.empty(5, 33, dtype=torch.float16), TypeError, "bfloat16, float32, got float16"),
])
def test_a_buffer_that_does_not_fit_is_refused(out: Tensor, error: type[Exception], match: str) -> None:
    inputs = layer(5, 48, 33)(New(torch.bfloat16))
    with pytest.raises(error, match=match) as caught:
        invariant_linear(**inputs, out=out)
    assert str(caught.value).startswith("invariant_linear: ")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("inputs, outputs", [(0, 3), (1, 18), (15, 5), (16, 16), (33, 37), (256, 49), (1040, 21)])
def test_a_row_has_the_same_bits_among_any_rows(
    inputs: int, outputs: int, dtype: torch.dtype, threads: Callable[[int], None]
) -> None:
    """Every number of rows up to 70, which covers every tile, on one thread and on two."""
    new = New(dtype)
    x, weight, bias = new(70, inputs), new(outputs, inputs), new(outputs)
    alone = torch.cat([invariant_linear(x[m : m + 1], weight, bias) for m in range(70)])
    for rows in range(1, 71):
        threads(1 + rows % 2)
        assert same_bits(invariant_linear(x[:rows], weight, bias), alone[:rows]), f"{rows} rows"
    assert same_bits(invariant_linear(x.flip(0), weight, bias), alone.flip(0)), "another order of the rows"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_output_has_the_same_bits_among_any_outputs(dtype: torch.dtype) -> None:
    """Every number of outputs up to 70, and tasks of rows and outputs with remainders in both."""
    new = New(dtype)
    x, weight, bias = new(140, 100), new(200, 100), new(200)
    alone = torch.cat([invariant_linear(x, weight[n : n + 1], bias[n : n + 1]) for n in range(200)], 1)
    assert same_bits(invariant_linear(x, weight, bias), alone)
    for outputs in range(1, 71):
        for rows in (1, 2, 7, 19):
            y = invariant_linear(x[:rows], weight[:outputs], bias[:outputs])
            assert same_bits(y, alone[:rows, :outputs]), f"{outputs} outputs, {rows} rows"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_bits_do_not_depend_on_where_rows_stand_in_memory(dtype: torch.dtype) -> None:
    new = New(dtype)
    x, weight, bias = new(6, 50), new(21, 50), new(21)
    wanted = invariant_linear(x, weight, bias)
    for shift in (1, 3, 8):
        def moved(tensor: Tensor, shift: int = shift) -> Tensor:
            room = torch.empty(tensor.numel() + shift, dtype=dtype)[shift:].view(tensor.shape)
            return room.copy_(tensor)

        out = torch.empty(6 * 21 + shift, dtype=dtype)[shift:].view(6, 21)
        assert same_bits(invariant_linear(moved(x), moved(weight), moved(bias), out=out), wanted)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_buffer_in_float32_is_rounded_to_the_result(dtype: torch.dtype) -> None:
    inputs = layer(20, 100, 30)(New(dtype))
    out = invariant_linear(**inputs, out=torch.empty(20, 30))
    assert same_bits(out.to(dtype), invariant_linear(**inputs))
    assert dtype == torch.float32 or not torch.equal(out, out.to(dtype).float())


def test_one_bad_row_stays_by_itself() -> None:
    inputs = layer(19, 40, 20)(New(torch.float32))
    clean = invariant_linear(**inputs)
    inputs["x"][7] = torch.nan
    y = invariant_linear(**inputs)
    assert bool(y[7].isnan().all())
    rest = torch.arange(19) != 7
    assert same_bits(y[rest], clean[rest])


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        x, weight = (torch.empty(*shape, device="cuda", dtype=torch.bfloat16) for shape in ((3, 64), (50, 64)))
        if "invariant_linear" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="invariant_linear: has no CUDA kernel"):
                invariant_linear(x, weight)
            return
        y = invariant_linear(x, weight)
        assert (y.device.type, y.dtype, tuple(y.shape)) == ("cuda", torch.bfloat16, (3, 50))
        out = torch.empty(3, 50, device="cuda")
        assert invariant_linear(x, weight, out=out) is out
