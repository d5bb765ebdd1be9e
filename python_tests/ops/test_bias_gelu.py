"""bias_gelu against its float64 oracle, and at the ends of the number range."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import simt
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from instructgpt_fast.ops.bias_gelu import bias_gelu, bias_gelu_oracle
from python_tests.accuracy import compare, same_bits
from python_tests.ops.suite import BadCall, Case, New, OpSuite, Sabotage


def rows(*shape: int, scale: float = 2.0):
    return lambda new: {"x": new(*shape, scale=scale), "bias": new(shape[-1])}


def with_float32_bias(new: New) -> dict[str, torch.Tensor]:
    return {"x": new(9, 32), "bias": new.float32(32)}


class TestBiasGelu(OpSuite):
    name = "bias_gelu"
    op = staticmethod(bias_gelu)
    oracle = staticmethod(bias_gelu_oracle)
    yardstick = staticmethod(lambda x, bias, approximate="tanh": F.gelu(x + bias, approximate=approximate).to(x.dtype))
    differentiable = ("x", "bias")
    cases = (
        Case("tanh", rows(37, 48)),
        Case("exact", rows(37, 48), {"approximate": "none"}),
        Case("three dimensions, width 17", rows(3, 5, 17)),
        Case("one vector", rows(64)),
        Case("wide range", rows(8, 129, scale=12.0)),
        Case("wide range, exact", rows(8, 129, scale=12.0), {"approximate": "none"}),
        Case("several blocks of the bias sum", rows(1100, 8)),
        Case("bias in float32", with_float32_bias),
        Case("empty", rows(0, 48)),
        Case("no width", rows(3, 0)),
    )
    sabotages = (
        Sabotage("bias left out", lambda i: {**i, "bias": i["bias"] * 0}),
        Sabotage("bias shifted by one", lambda i: {**i, "bias": i["bias"].roll(1)}),
        Sabotage("one element off", lambda i: {**i, "x": i["x"] + F.one_hot(
            torch.tensor(i["x"].shape[-1] // 2), max(i["x"].shape[-1], 1))[:i["x"].shape[-1]].to(i["x"].dtype)}),
    )
    bad_calls = (
        BadCall("bias of another width", lambda i: {**i, "bias": i["bias"][:-1]}, ValueError,
                r"shape \(48,\).*got \(47,\)"),
        BadCall("bias of another dtype", lambda i: {**i, "bias": i["bias"].half()}, TypeError, "bias must have dtype"),
        BadCall("integers", lambda i: {**i, "x": i["x"].long()}, TypeError, "x must have dtype float32"),
        BadCall("a number", lambda i: {**i, "x": 1.0}, TypeError, "must be a torch.Tensor, got float"),
        BadCall("no dimension", lambda i: {**i, "x": i["x"][0, 0]}, ValueError, "at least 1 dimensions"),
        BadCall("kind", lambda i: {**i, "approximate": "erf"}, ValueError, """"tanh" or "none", got 'erf'"""),
    )


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_every_float_from_minus_to_plus_ten(approximate: str) -> None:
    """A fine sweep, where an error of the polynomials would show as one bad interval."""
    x = torch.linspace(-10, 10, 400_001)[:, None].contiguous().requires_grad_()
    bias = torch.zeros(1)
    y = bias_gelu(x, bias, approximate=approximate)
    y.sum().backward()
    x64 = x.detach().double().requires_grad_()
    y64 = bias_gelu_oracle(x64, bias.double(), approximate=approximate)
    y64.sum().backward()
    plain = x.detach().clone().requires_grad_()
    F.gelu(plain, approximate=approximate).sum().backward()
    compare(y, y64, F.gelu(x.detach(), approximate=approximate))
    compare(x.grad, x64.grad, plain.grad, name="slope")


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_ends_of_the_range(approximate: str) -> None:
    """Huge and infinite arguments reach the limits 0 and v, slopes 0 and 1; NaN stays NaN."""
    big = [1e20, 3e38, float("inf")]
    x = torch.tensor([[-v for v in big] + big]).requires_grad_()
    y = bias_gelu(x, torch.zeros(6), approximate=approximate)
    y.sum().backward()
    assert y.tolist() == [[0.0, 0.0, 0.0, *x[0, 3:].tolist()]]
    assert x.grad is not None and x.grad.tolist() == [[0.0] * 3 + [1.0] * 3]
    nan = torch.full((1, 3), float("nan"), requires_grad=True)
    y = bias_gelu(nan, torch.zeros(3), approximate=approximate)
    y.sum().backward()
    assert bool(y.isnan().all()) and nan.grad is not None and bool(nan.grad.isnan().all())


def test_bias_gradient_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, bias = torch.randn(3000, 40), torch.randn(40, requires_grad=True)
    grads = []
    threads = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        grads.append(torch.autograd.grad(bias_gelu(x, bias).sum(), bias)[0])
    torch.set_num_threads(threads)
    assert same_bits(grads[0], grads[1]) and same_bits(grads[0], grads[2])


def test_only_one_tensor_of_the_size_of_x_is_kept() -> None:
    x, bias = torch.randn(64, 32, requires_grad=True), torch.randn(32, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        bias_gelu(x, bias)
    assert sum(t.numel() for t in kept) == x.numel() + bias.numel()


def test_a_device_without_a_kernel_is_refused() -> None:
    with torch._subclasses.FakeTensorMode(), pytest.raises(BackendError, match=r"bias_gelu: .*xpu"):
        bias_gelu(torch.empty(2, 3, device="xpu"), torch.empty(3, device="xpu"))


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        x, bias = torch.empty(4, 6, 64, device="cuda", dtype=torch.bfloat16), torch.empty(64, device="cuda")
        if "bias_gelu" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="bias_gelu: has no CUDA kernel"):
                bias_gelu(x, bias)
            return
        y = bias_gelu(x, bias)
        assert (y.device.type, y.dtype, tuple(y.shape)) == ("cuda", torch.bfloat16, (4, 6, 64))
        dx, dbias = torch.ops.instructgpt_fast.bias_gelu_backward(y, x, bias, True)
        assert (dx.dtype, tuple(dx.shape), dbias.dtype) == (torch.bfloat16, (4, 6, 64), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_the_kernels_over_the_whole_range(approximate: str, dtype: torch.dtype) -> None:
    """The fast functions of 16-bit elements, and the ends of the range, by the emulated kernels."""
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
    x = torch.linspace(-12, 12, 8000).to(dtype).reshape(250, 32).requires_grad_()
    far = torch.tensor([[-float("inf"), -3e38, -6e4, 6e4, 3e38, float("inf"), 0.0, float("nan")]]).to(dtype)
    far.requires_grad_()
    with simt.executing():
        y = bias_gelu(x, torch.zeros(32), approximate=approximate)
        y.backward(torch.ones_like(y))
        ends = bias_gelu(far, torch.zeros(8), approximate=approximate)
        ends.backward(torch.ones_like(ends))
    x64 = x.detach().double().requires_grad_()
    y64 = bias_gelu_oracle(x64, torch.zeros(32).double(), approximate=approximate)
    y64.sum().backward()
    plain = x.detach().clone().requires_grad_()
    F.gelu(plain, approximate=approximate).sum().backward()
    compare(y, y64, F.gelu(x.detach(), approximate=approximate))
    compare(x.grad, x64.grad, plain.grad, name="slope")
    assert ends[0, :7].tolist() == [0.0, 0.0, 0.0, *far[0, 3:7].tolist()] and bool(ends[0, 7].isnan())
    assert far.grad is not None and far.grad[0, :7].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5]
