"""linear_cross_entropy against whole logits: values, gradients, the mask, several chunks, hand-computed numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.measure import peak_memory
from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import compare, same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, loss_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """What one writes without the op: whole logits in the dtype of the model, the loss in float32."""
    if loss_mask is not None:
        hidden, targets = hidden[loss_mask], targets[loss_mask]
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


def draw(count: int, width: int, vocabulary: int, *, masked: bool, scale: float = 0.5) -> Any:
    def inputs(new: New) -> Inputs:
        return {
            "hidden": new(count, width),
            "weight": new(vocabulary, width, scale=scale),
            "targets": new.ints(0, vocabulary, count),
            "loss_mask": new.mask(count) if masked else None,
        }

    return inputs


def none_counted(new: New) -> Inputs:
    return {**draw(9, 16, 33, masked=False)(new), "loss_mask": torch.zeros(9, dtype=torch.bool)}


def poison(inputs: Inputs) -> Inputs | None:
    mask = inputs["loss_mask"]
    if mask is None or bool(mask.all()):
        return None
    hidden, targets = inputs["hidden"].clone(), inputs["targets"].clone()
    hidden[~mask] = math.nan
    targets[~mask] = -100
    return {**inputs, "hidden": hidden, "targets": targets}


def flip_first_uncounted(inputs: Inputs) -> Inputs:
    mask = inputs["loss_mask"]
    if mask is None or bool(mask.all()) or mask.numel() == 0:
        return inputs
    mask = mask.clone()
    mask[int((~mask).nonzero()[0])] = True
    return {**inputs, "loss_mask": mask}


class TestLinearCrossEntropy(OpSuite):
    name = "linear_cross_entropy"
    op = staticmethod(ops.linear_cross_entropy)
    oracle = staticmethod(ops.linear_cross_entropy_oracle)
    yardstick = staticmethod(plain)
    differentiable = ("hidden", "weight")
    poison = staticmethod(poison)
    cases = (
        Case("masked", draw(21, 48, 211, masked=True)),
        Case("all counted", draw(16, 64, 1500, masked=False)),
        Case("large logits", draw(16, 32, 130, masked=True, scale=8.0)),
        Case("one token", draw(1, 8, 5, masked=False)),
        Case("one word", draw(3, 8, 1, masked=False)),
        Case("empty", draw(0, 16, 33, masked=True)),
        Case("none counted", none_counted),
    )
    sabotages = (
        Sabotage("one uncounted token counted", flip_first_uncounted),
        Sabotage("targets off by one", lambda i: {**i, "targets": i["targets"].roll(1)}),
        Sabotage("one row of hidden left out", lambda i: {**i, "hidden": i["hidden"].roll(1, 0)}),
    )
    bad_calls = (
        BadCall("weight of another width", lambda i: {**i, "weight": i["weight"][:, 1:]}, ValueError, r"\[V, D\]"),
        BadCall("weight of another dtype", lambda i: {**i, "weight": i["weight"].double()}, TypeError, "float64"),
        BadCall("mixed dtypes", lambda i: {**i, "weight": i["weight"].bfloat16()}, TypeError, "bfloat16"),
        BadCall("no vocabulary", lambda i: {**i, "weight": i["weight"][:0]}, ValueError, "at least one row"),
        BadCall("int32 targets", lambda i: {**i, "targets": i["targets"].int()}, TypeError, "int64"),
        BadCall("too few targets", lambda i: {**i, "targets": i["targets"][1:]}, ValueError, r"\(21,\)"),
        BadCall("a float mask", lambda i: {**i, "loss_mask": i["loss_mask"].float()}, TypeError, "bool"),
        BadCall("three dimensions", lambda i: {**i, "hidden": i["hidden"][None]}, ValueError, "2 dimensions"),
        BadCall("target out of range", lambda i: {**i, "targets": i["targets"] + 211}, RuntimeError, r"in \[0, 211\)"),
    )

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        """One number is judged beside one number; and bfloat16 gradients are rounded once more than plain PyTorch's."""
        if what == "output 0":
            return {"ulps": 4.0, "why_looser": "a single sum: plain PyTorch's error of one number is near 0 by luck"}
        if case.name == "one token" and dtype == torch.float16:
            return {"rms_factor": 2.5, "why_looser": "a handful of numbers: plain PyTorch's error is small by luck"}
        if dtype == torch.bfloat16:
            # Two roundings of equal size: sqrt(2) times the error of one, and the usual margin.
            return {"rms_factor": 1.25 * math.sqrt(2), "why_looser": "rounded by the matmul, and again when scaled"}
        return {}


def test_by_hand() -> None:
    """Logits (0, ln 3) give probabilities 1/4 and 3/4: losses ln 4 and ln 4/3; the third token does not count."""
    hidden = torch.tensor([[1.0], [1.0], [5.0]], requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3.0)]], requires_grad=True)
    loss = ops.linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 0]), torch.tensor([True, True, False]))
    loss.backward()
    # Numbers of order one in float32: a few units in the last place.
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(loss, torch.tensor(math.log(4.0) + math.log(4.0 / 3.0)), **close)
    assert hidden.grad is not None and weight.grad is not None
    # dloss/dz is p - onehot: (-3/4, 3/4) and (1/4, -1/4).
    expected = torch.tensor([[0.75 * math.log(3.0)], [-0.25 * math.log(3.0)], [0.0]])
    torch.testing.assert_close(hidden.grad, expected, **close)
    torch.testing.assert_close(weight.grad, torch.tensor([[-0.5], [0.5]]), **close)


# Beyond 64 MiB of logits a second chunk begins: 17 million float32, 34 million bfloat16.
@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 90), (torch.bfloat16, 180), (torch.float16, 90)])
def test_several_chunks(dtype: torch.dtype, count: int) -> None:
    vocabulary = 200_000
    inputs = draw(count, 8, vocabulary, masked=True)(New(dtype))
    inputs["loss_mask"] = torch.ones(count, dtype=torch.bool)
    inputs["loss_mask"][3] = False

    def evaluate(function: Any, cast: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = {k: inputs[k].to(cast).requires_grad_() for k in ("hidden", "weight")}
        loss = function(**{**inputs, **leaves})
        return loss, *torch.autograd.grad(loss / 64, list(leaves.values()))

    actual, oracle, yardstick = (
        evaluate(f, d)
        for f, d in (
            (ops.linear_cross_entropy, dtype),
            (ops.linear_cross_entropy_oracle, torch.float64),
            (plain, dtype),
        )
    )
    for name, a, o, y in zip(("loss", "dhidden", "dweight"), actual, oracle, yardstick, strict=True):
        compare(a, o, y, name=name)


def test_logits_are_never_whole() -> None:
    """128 MiB of logits: plain PyTorch holds them and their gradient, the op 64 MiB at a time."""
    mebibyte, inputs = 1 << 20, draw(1024, 8, 32768, masked=False)(New(torch.float32))

    def gradients(function: Any) -> tuple[torch.Tensor, ...]:
        leaves = {k: inputs[k].detach().requires_grad_() for k in ("hidden", "weight")}
        return torch.autograd.grad(function(**{**inputs, **leaves}), list(leaves.values()))

    gradients(ops.linear_cross_entropy)  # libraries take their buffers on the first call
    peak = peak_memory(lambda: gradients(ops.linear_cross_entropy))
    if peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert peak < 96 * mebibyte
    plain_peak = peak_memory(lambda: gradients(plain))
    assert plain_peak is not None and plain_peak > 192 * mebibyte


def test_float16_sum_beyond_its_range() -> None:
    """The gradient of the sum is out of float16's range, that of the mean is not: it must come out finite."""
    count = 4000
    hidden = torch.full((count, 4), 30.0, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(2, 4, dtype=torch.float16, requires_grad=True)
    loss = ops.linear_cross_entropy(hidden, weight, torch.zeros(count, dtype=torch.int64)) / count
    loss.backward()
    # p - onehot = -1/2 and +1/2 for every token; the mean over tokens of 30 times that is 15, exact in float16.
    assert weight.grad is not None
    assert weight.grad.tolist() == [[-15.0] * 4, [15.0] * 4]


@pytest.mark.parametrize("needed", ["hidden", "weight"])
def test_only_one_gradient(needed: str) -> None:
    """Leaving out one gradient changes no bit of the other."""
    inputs = draw(20, 16, 50, masked=True)(New(torch.float32))
    both = {**inputs, "hidden": inputs["hidden"].clone().requires_grad_()}
    both["weight"] = inputs["weight"].clone().requires_grad_()
    alone = {**inputs, needed: inputs[needed].clone().requires_grad_()}
    (expected,) = torch.autograd.grad(ops.linear_cross_entropy(**both), [both[needed]])
    (actual,) = torch.autograd.grad(ops.linear_cross_entropy(**alone), [alone[needed]])
    assert same_bits(actual, expected)


def test_any_number_of_threads() -> None:
    """Where rows are cut between threads has no effect on the loss, and only the matmuls' on the gradients."""
    inputs = draw(64, 32, 500, masked=True)(New(torch.float32))
    threads = torch.get_num_threads()
    losses = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            losses.append(ops.linear_cross_entropy(**inputs))
    finally:
        torch.set_num_threads(threads)
    # MKL may cut its sums differently; a few units in the last place of a sum of 45 losses.
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-6, atol=0.0)


def test_nan_that_counts_is_not_hidden() -> None:
    inputs = draw(6, 8, 10, masked=False)(New(torch.float32))
    inputs["hidden"][2, 3] = math.nan
    assert ops.linear_cross_entropy(**inputs).isnan()


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        hidden = torch.empty(6, 16, device="cuda", dtype=torch.bfloat16)
        weight = torch.empty(40, 16, device="cuda", dtype=torch.bfloat16)
        targets = torch.empty(6, device="cuda", dtype=torch.int64)
        if "linear_cross_entropy" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="linear_cross_entropy: has no CUDA kernel"):
                ops.linear_cross_entropy(hidden, weight, targets)
            return
        loss = ops.linear_cross_entropy(hidden, weight, targets)
        assert (loss.device.type, loss.dtype, tuple(loss.shape)) == ("cuda", torch.float32, ())
        raw = torch.ops.instructgpt_fast.linear_cross_entropy(hidden, weight, targets, None, True, False)
        assert [(t.dtype, tuple(t.shape)) for t in raw[1:]] == [(torch.bfloat16, (6, 16)), (torch.bfloat16, (0, 16))]
