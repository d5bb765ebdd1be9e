"""linear_cross_entropy's kernel: its traffic as a formula, and every way of breaking it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import compare
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_linear_cross_entropy as op_tests
from python_tests.ops.suite import Inputs, New

Traffic = Mapping[str, Mapping[str, Bytes]]


def traffic(*, warps: int, reads: int = 1, gradient: bool = True) -> Callable[[Inputs], Traffic]:
    """Logits are read `reads` times by whole vectors and written once up to the stride; a warp asks for its target."""

    def formula(inputs: Inputs) -> Traffic:
        hidden, vocabulary, mask = inputs["hidden"], inputs["weight"].shape[0], inputs["loss_mask"]
        size, rows = hidden.dtype.itemsize, len(hidden) if mask is None else int(mask.sum())
        stride, vector_bytes = -(-vocabulary // 64) * 64, 16 * -(-size * vocabulary // 16)
        logits = (rows * (reads * vector_bytes + size), rows * size * stride if gradient else 0)
        targets, losses = {"targets": (8 * warps * rows, 0)}, (4 * rows, 4 * rows)
        if mask is None:
            buffers = {**targets, "scratch 0": logits, "scratch 1": losses}
        else:
            buffers = {"scratch 0": targets["targets"], "scratch 1": logits, "scratch 2": losses}
        return {"linear_cross_entropy": {**buffers, "loss": (0, 4)}}

    return formula


def all_counted(rows: int, vocabulary: int) -> Any:
    return op_tests.draw(rows, 8, vocabulary, masked=False)


EQUIVALENT = {
    ("drop_barrier", "all of this block's writes are made"): "thread 0 alone writes a loss, and it counts",
    ("drop_barrier", "scratch has been read and may be written again"): "the sum of the losses is the last reduction",
}


class TestCrossEntropyRows(KernelSuite):
    suite = op_tests.TestLinearCrossEntropy
    cases = (
        # 517 vectors and one logit of f32: four vectors at once, one, and a part of one; kept in shared memory.
        KernelCase("row in shared memory", all_counted(3, 2069), traffic=traffic(warps=4)),
        KernelCase("row read again", all_counted(2, 5131), traffic=traffic(warps=4, reads=2)),
        KernelCase("large block", all_counted(2, 8209), traffic=traffic(warps=16, reads=2)),
        KernelCase("bfloat16, masked", op_tests.draw(7, 8, 211, masked=True), torch.bfloat16,
                   traffic=traffic(warps=4)),
        KernelCase("float16", all_counted(3, 130), torch.float16, traffic=traffic(warps=4)),
    )
    equivalent = EQUIVALENT


class LossOnly(op_tests.TestLinearCrossEntropy):
    """The op without gradients."""

    __test__ = False
    differentiable = ()


class TestLossAlone(KernelSuite):
    suite = LossOnly
    cases = (
        KernelCase("float32", all_counted(3, 2069), traffic=traffic(warps=4, gradient=False)),
        KernelCase("bfloat16, masked", op_tests.draw(7, 8, 211, masked=True), torch.bfloat16,
                   traffic=traffic(warps=4, gradient=False)),
    )
    equivalent = EQUIVALENT


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_several_chunks_at_the_vocabulary_of_gpt_2(dtype: torch.dtype) -> None:
    """On one multiprocessor a chunk holds 7 rows of 50,257 logits: 8 counted rows make two of 4."""
    inputs = op_tests.draw(9, 8, 50257, masked=False)(New(dtype))
    inputs["loss_mask"] = torch.ones(9, dtype=torch.bool)
    inputs["loss_mask"][5] = False

    def evaluate(function: Any, cast: torch.dtype) -> list[torch.Tensor]:
        leaves = {k: inputs[k].to(cast).requires_grad_() for k in ("hidden", "weight")}
        loss = function(**{**inputs, **leaves})
        return [loss.detach(), *torch.autograd.grad(loss / 8, list(leaves.values()))]

    with simt.executing(multiprocessors=1, accounting=True) as run:
        actual = evaluate(ops.linear_cross_entropy, dtype)
    assert [launch.grid for launch in run.launches] == [(4, 1), (4, 1)]
    oracle = evaluate(ops.linear_cross_entropy_oracle, torch.float64)
    yardstick = evaluate(op_tests.plain, dtype)
    for name, *values in zip(("loss", "dhidden", "dweight"), actual, oracle, yardstick, strict=True):
        compare(*values, name=name, ulps=4.0, why_looser="the loss is one number: plain PyTorch's error of it is luck")


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
@pytest.mark.parametrize("target", [-1, 130])
def test_a_target_outside_the_vocabulary_ends_the_launch(target: int) -> None:
    inputs = all_counted(3, 130)(New(torch.float32))
    inputs["targets"][1] = target
    with simt.executing(), pytest.raises(simt.SimtError, match="trap"):
        ops.linear_cross_entropy(**inputs)


@pytest.mark.skipif(not simt.available(), reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
def test_infinite_logits() -> None:
    """-infinity is a word of probability 0, in whole vectors too; +infinity and NaN make the loss NaN."""
    hidden, weight = torch.ones(1, 1), torch.zeros(700, 1)
    weight[:600] = -torch.inf
    with simt.executing():
        loss = ops.linear_cross_entropy(hidden, weight, torch.tensor([650]))
        torch.testing.assert_close(loss, torch.tensor(100.0).log(), rtol=1e-6, atol=0.0)  # a few ulp of float32
        for value in (torch.inf, torch.nan):
            weight[3] = value
            assert ops.linear_cross_entropy(hidden, weight, torch.tensor([650])).isnan()
