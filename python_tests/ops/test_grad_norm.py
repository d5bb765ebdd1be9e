"""grad_norm against plain torch: values, equal bits for any number of threads, numbers out of float32's squares."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, OpSuite, Sabotage


def plain(tensors: list[torch.Tensor]) -> torch.Tensor:
    """What torch.nn.utils.clip_grad_norm_ computes, from float32 copies."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t.float()) for t in tensors]))


def drop_last_element(inputs: Inputs) -> Inputs:
    return {"tensors": [t.reshape(-1)[:-1] for t in inputs["tensors"]]}


class TestGradNorm(OpSuite):
    name = "grad_norm"
    op = staticmethod(ops.grad_norm)
    oracle = staticmethod(ops.grad_norm_oracle)
    yardstick = staticmethod(plain)
    cases = (
        Case("several shapes", lambda new: {"tensors": [new(7, 5), new(3), new(2, 3, 4), new(1)]}),
        Case("several blocks", lambda new: {"tensors": [new(300, 500), new(65536)]}),
        Case("one empty tensor among others", lambda new: {"tensors": [new(0), new(4, 4)]}),
        Case("nothing but empty", lambda new: {"tensors": [new(0, 3)]}),
    )
    sabotages = (
        Sabotage("one tensor left out", lambda i: {"tensors": i["tensors"][:-1] or i["tensors"]}),
        Sabotage("last elements left out", drop_last_element),
    )
    bad_calls = (
        BadCall("empty list", lambda i: {"tensors": []}, ValueError, "at least one"),
        BadCall("an int64 tensor", lambda i: {"tensors": [torch.ones(3).long()]}, TypeError, r"\[0\].*int64"),
        BadCall("not a tensor", lambda i: {"tensors": [1.0]}, TypeError, "float"),
    )


def test_by_hand() -> None:
    assert ops.grad_norm([torch.tensor([3.0]), torch.tensor([[4.0]])]).item() == 5.0
    mixed = [torch.tensor([1.0]), torch.tensor([2.0]).bfloat16(), torch.tensor([2.0]).half()]
    assert ops.grad_norm(mixed).item() == 3.0


def test_equal_bits_for_any_number_of_threads() -> None:
    tensors = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (200_000, 3, 70_001)]
    threads = torch.get_num_threads()
    norms = []
    try:
        for count in (1, 2, 3, 4):
            torch.set_num_threads(count)
            norms.append(ops.grad_norm(tensors))
    finally:
        torch.set_num_threads(threads)
    assert all(same_bits(norm, norms[0]) for norm in norms)


@pytest.mark.parametrize("value", [1e30, 3e18, 1e-16, 1e-19, 1e-30])
def test_squares_out_of_float32_range(value: float) -> None:
    """A square of 1e60 or 1e-60 fits float64; the norm of 4096 equal numbers is 64 times the number."""
    norm = ops.grad_norm([torch.full((4096,), value)])
    # Roundings of float32 while the squares of a tile are added: far below the error that a lost square would make.
    torch.testing.assert_close(norm, torch.tensor(64 * value), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_shows(value: float) -> None:
    tensors = [torch.ones(5), torch.tensor([1.0, value, 1.0])]
    norm = ops.grad_norm(tensors)
    assert norm.isnan() if math.isnan(value) else norm == math.inf


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fake where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        tensors = [torch.empty(4, 6, device="cuda", dtype=torch.bfloat16), torch.empty(3, device="cuda")]
        if "grad_norm" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="grad_norm: has no CUDA kernel"):
                ops.grad_norm(tensors)
            return
        norm = ops.grad_norm(tensors)
        assert (norm.device.type, norm.dtype, tuple(norm.shape)) == ("cuda", torch.float32, ())
