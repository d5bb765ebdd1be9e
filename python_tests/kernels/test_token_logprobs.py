"""token_logprobs' kernels: their traffic as a formula, and every way of breaking them found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import compare, same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_token_logprobs as op_tests
from python_tests.ops.suite import Inputs, New

Traffic = Mapping[str, Mapping[str, Bytes]]
PIECE = 512  # vectors of 16 bytes that a block of the backward kernel turns into gradient

needs_the_emulator = pytest.mark.skipif(
    not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)"
)


def traffic(inputs: Inputs) -> Traffic:
    """Forward reads the logits once by whole vectors; backward reads and writes them, and a row's numbers a block."""
    hidden, vocabulary = inputs["hidden"], inputs["weight"].shape[0]
    size, rows = hidden.dtype.itemsize, len(hidden)
    stride, vector_bytes = -(-vocabulary // 64) * 64, 16 * -(-size * vocabulary // 16)
    blocks = rows * -(-(size * stride // 16) // PIECE)
    return {
        "token_logprobs": {
            "scratch 0": (rows * (vector_bytes + size), 0), "tokens": (8 * rows, 0),
            "logprobs": (0, 4 * rows), "entropy": (0, 4 * rows), "statistics": (0, 8 * rows),
        },
        "token_logprobs_backward": {
            "scratch 0": (rows * vector_bytes, rows * size * stride), "tokens": (8 * blocks, 0),
            "unnamed 0": (8 * blocks, 0), "dlogprobs": (4 * blocks, 0), "dentropy": (4 * blocks, 0),
            "entropy": (4 * blocks, 0), "statistics": (8 * blocks, 0),
        },
    }


class TestTokenLogprobRows(KernelSuite):
    suite = op_tests.TestTokenLogprobs
    cases = (
        # 517 vectors and one logit of f32: four vectors at once, one, and a part of one.
        KernelCase("four vectors at once", op_tests.draw(3, 8, 2069), traffic=traffic),
        KernelCase("large block", op_tests.draw(2, 8, 8209), traffic=traffic),
        KernelCase("bfloat16, temperature", op_tests.draw(5, 8, 211), torch.bfloat16, {"temperature": 0.7}, traffic),
        KernelCase("float16", op_tests.draw(3, 8, 130), torch.float16, traffic=traffic),
    )


@needs_the_emulator
def test_rows_without_a_gradient_are_left_out() -> None:
    """Where both incoming gradients are 0, not even NaN in hidden reaches the gradients of the others."""
    counted = torch.tensor([True, False, True, True, False])
    inputs = op_tests.draw(5, 16, 40)(New(torch.float32))

    def gradients(hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = [hidden.clone().requires_grad_(), inputs["weight"].clone().requires_grad_()]
        with simt.executing(accounting=True) as run:
            logprobs, entropy = ops.token_logprobs(*leaves, inputs["tokens"])
            zero = torch.zeros(())
            outputs = torch.where(counted, logprobs, zero).sum() + 0.1 * torch.where(counted, entropy, zero).sum()
            results = torch.autograd.grad(outputs, leaves)
        assert run.launches[-1].grid == (3, 1)
        return results

    poisoned = inputs["hidden"].clone()
    poisoned[~counted] = torch.nan
    for clean, other in zip(gradients(inputs["hidden"]), gradients(poisoned), strict=True):
        assert same_bits(clean, other)
    assert not gradients(poisoned)[0][~counted].any()


@needs_the_emulator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_several_chunks_at_the_vocabulary_of_gpt_2(dtype: torch.dtype) -> None:
    """On one multiprocessor a chunk holds 3 rows of 50,257 logits forward and 7 backward: 8 rows make 3 and 2."""
    inputs = op_tests.draw(8, 8, 50257)(New(dtype))

    def evaluate(function: Any, cast: torch.dtype) -> list[torch.Tensor]:
        leaves = {k: inputs[k].to(cast).requires_grad_() for k in ("hidden", "weight")}
        logprobs, entropy = function(**{**inputs, **leaves})
        gradients = torch.autograd.grad(logprobs.sum() + 0.5 * entropy.sum(), list(leaves.values()))
        return [logprobs.detach(), entropy.detach(), *gradients]

    with simt.executing(multiprocessors=1, accounting=True) as run:
        actual = evaluate(ops.token_logprobs, dtype)
    assert [launch.grid[0] for launch in run.launches] == [3, 3, 2, 4, 4]
    oracle = evaluate(ops.token_logprobs_oracle, torch.float64)
    yardstick = evaluate(op_tests.plain, dtype)
    for name, *values in zip(("logprobs", "entropy", "dhidden", "dweight"), actual, oracle, yardstick, strict=True):
        compare(*values, name=name)


@needs_the_emulator
@pytest.mark.parametrize(("incoming", "size"), [(2.0**-14, 64.0), (2.0**20, 2.0**-8)], ids=["small", "large"])
def test_float16_gradients_of_any_size(incoming: float, size: float) -> None:
    """The logits' gradient is brought into float16's range and back: a power of two changes no digit of dhidden.

    Unscaled, the small ones would be subnormal numbers of float16 and the large ones infinite.
    """
    new = New(torch.float16)
    hidden, weight, tokens = new(6, 8, scale=1 / size), new(16, 8, scale=size), new.ints(0, 16, 6)

    def dhidden(factor: float) -> torch.Tensor:
        leaf = hidden.clone().requires_grad_()
        with simt.executing():
            logprobs, entropy = ops.token_logprobs(leaf, weight, tokens)
            (gradient,) = torch.autograd.grad(factor * (logprobs.sum() - 0.5 * entropy.sum()), leaf)
        return gradient

    expected = dhidden(1.0).float()
    assert bool((expected.abs() > 1e-4).any())
    actual = dhidden(incoming).float() / incoming
    normal = (expected * incoming).abs() > torch.finfo(torch.float16).tiny
    assert bool(normal.any())
    assert same_bits(actual[normal], expected[normal])


@needs_the_emulator
@pytest.mark.parametrize("token", [-1, 130])
def test_a_token_outside_the_vocabulary_ends_the_launch(token: int) -> None:
    inputs = op_tests.draw(3, 8, 130)(New(torch.float32))
    inputs["tokens"][1] = token
    with simt.executing(), pytest.raises(simt.SimtError, match="trap"):
        ops.token_logprobs(**inputs)
