"""token_logprobs against whole logits: values, gradients, rows without a gradient, numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import compare, same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, *, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one writes without the op: whole logits in the dtype of the model, log-probabilities in float32."""
    log_p = F.log_softmax(F.linear(hidden, weight).float() / temperature, dim=-1)
    return log_p.gather(1, tokens[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def draw(count: int, width: int, vocabulary: int, *, scale: float = 0.5) -> Any:
    def inputs(new: New) -> Inputs:
        return {
            "hidden": new(count, width),
            "weight": new(vocabulary, width, scale=scale),
            "tokens": new.ints(0, vocabulary, count),
        }

    return inputs


class TestTokenLogprobs(OpSuite):
    name = "token_logprobs"
    op = staticmethod(ops.token_logprobs)
    oracle = staticmethod(ops.token_logprobs_oracle)
    yardstick = staticmethod(plain)
    differentiable = ("hidden", "weight")
    cases = (
        Case("rows", draw(19, 48, 211)),
        Case("long rows", draw(12, 64, 1500)),
        Case("temperature 0.7", draw(16, 32, 130), {"temperature": 0.7}),
        Case("temperature 2", draw(16, 32, 130), {"temperature": 2.0}),
        Case("large logits", draw(16, 32, 130, scale=8.0)),
        Case("one token", draw(1, 8, 5)),
        Case("empty", draw(0, 16, 33)),
    )
    sabotages = (
        Sabotage("tokens off by one", lambda i: {**i, "tokens": i["tokens"].roll(1)}),
        Sabotage("one row of hidden shifted", lambda i: {**i, "hidden": i["hidden"].roll(1, 0)}),
        Sabotage("one word left out", lambda i: {**i, "weight": torch.cat([i["weight"][1:], i["weight"][:1] * 0])}),
    )
    bad_calls = (
        BadCall("weight of another width", lambda i: {**i, "weight": i["weight"][:, 1:]}, ValueError, r"\[V, D\]"),
        BadCall("mixed dtypes", lambda i: {**i, "weight": i["weight"].bfloat16()}, TypeError, "bfloat16"),
        BadCall("no vocabulary", lambda i: {**i, "weight": i["weight"][:0]}, ValueError, "at least one row"),
        BadCall("int32 tokens", lambda i: {**i, "tokens": i["tokens"].int()}, TypeError, "int64"),
        BadCall("too few tokens", lambda i: {**i, "tokens": i["tokens"][1:]}, ValueError, r"\(19,\)"),
        BadCall("temperature 0", lambda i: {**i, "temperature": 0.0}, ValueError, "above 0"),
        BadCall("temperature NaN", lambda i: {**i, "temperature": math.nan}, ValueError, "above 0"),
        BadCall("token out of range", lambda i: {**i, "tokens": i["tokens"] - 211}, RuntimeError, r"in \[0, 211\)"),
    )

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        if case.name == "one token" and what.startswith("output"):
            return {"ulps": 2.0, "why_looser": "one number, and plain PyTorch's error of one number is 0 by luck"}
        return {}


def test_by_hand() -> None:
    """At temperature 2 logits (0, 2 ln 3) give probabilities 1/4 and 3/4."""
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[0.0], [2 * math.log(3.0)]])
    logprobs, entropy = ops.token_logprobs(hidden, weight, torch.tensor([1]), temperature=2.0)
    # Numbers of order one in float32: a few units in the last place.
    torch.testing.assert_close(logprobs, torch.tensor([math.log(0.75)]), rtol=1e-6, atol=0.0)
    exact = 0.25 * math.log(4.0) + 0.75 * math.log(4.0 / 3.0)
    torch.testing.assert_close(entropy, torch.tensor([exact]), rtol=1e-6, atol=0.0)


def test_agrees_with_linear_cross_entropy() -> None:
    """The loss is minus the sum of the log-probabilities, from the same logits."""
    inputs = draw(40, 32, 300)(New(torch.float32))
    logprobs, _ = ops.token_logprobs(**inputs)
    loss = ops.linear_cross_entropy(inputs["hidden"], inputs["weight"], inputs["tokens"])
    # One rounding to float32 each: forty terms and their sum.
    torch.testing.assert_close(loss.double(), -logprobs.double().sum(), rtol=1e-6, atol=0.0)


def test_rows_without_a_gradient_are_left_out() -> None:
    """Where both incoming gradients are 0, not even NaN in hidden reaches the gradients of the others."""
    counted = torch.tensor([True, False, True, True, False])
    inputs = draw(5, 16, 40)(New(torch.float32))

    def gradients(hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = [hidden.clone().requires_grad_(), inputs["weight"].clone().requires_grad_()]
        logprobs, entropy = ops.token_logprobs(*leaves, inputs["tokens"])
        zero = torch.zeros(())
        outputs = torch.where(counted, logprobs, zero).sum() + 0.1 * torch.where(counted, entropy, zero).sum()
        return torch.autograd.grad(outputs, leaves)

    poisoned = inputs["hidden"].clone()
    poisoned[~counted] = math.nan
    for clean, other in zip(gradients(inputs["hidden"]), gradients(poisoned), strict=True):
        assert same_bits(clean, other)
    assert not gradients(poisoned)[0][~counted].any()


# Beyond 64 MiB of logits a second chunk begins: 17 million float32, 34 million bfloat16.
@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 90), (torch.bfloat16, 180)])
def test_several_chunks(dtype: torch.dtype, count: int) -> None:
    inputs = draw(count, 8, 200_000)(New(dtype))

    def evaluate(function: Any, cast: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = {k: inputs[k].to(cast).requires_grad_() for k in ("hidden", "weight")}
        logprobs, entropy = function(**{**inputs, **leaves})
        return logprobs, entropy, *torch.autograd.grad(logprobs.sum() + 0.5 * entropy.sum(), list(leaves.values()))

    actual, oracle, yardstick = (
        evaluate(f, d)
        for f, d in ((ops.token_logprobs, dtype), (ops.token_logprobs_oracle, torch.float64), (plain, dtype))
    )
    for name, a, o, y in zip(("logprobs", "entropy", "dhidden", "dweight"), actual, oracle, yardstick, strict=True):
        compare(a, o, y, name=name)


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        hidden = torch.empty(6, 16, device="cuda", dtype=torch.bfloat16)
        weight = torch.empty(40, 16, device="cuda", dtype=torch.bfloat16)
        tokens = torch.empty(6, device="cuda", dtype=torch.int64)
        if "token_logprobs" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="token_logprobs: has no CUDA kernel"):
                ops.token_logprobs(hidden, weight, tokens)
            return
        logprobs, entropy = ops.token_logprobs(hidden, weight, tokens)
        assert (logprobs.device.type, entropy.dtype, tuple(entropy.shape)) == ("cuda", torch.float32, (6,))
        raw = torch.ops.instructgpt_fast
        statistics = raw.token_logprobs(hidden, weight, tokens, 1.0)[2]
        dhidden, dweight = raw.token_logprobs_backward(
            logprobs, entropy, hidden, weight, tokens, entropy, statistics, 1.0, True, True
        )
        assert (dhidden.dtype, tuple(dweight.shape)) == (torch.bfloat16, (40, 16))
