"""ppo_loss's kernels: 33 bytes a token for both passes, sums in one order, every broken word found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_ppo_loss
from python_tests.ops.suite import Inputs, New
from python_tests.ops.test_ppo_loss import COEFFICIENTS

TILE, WARPS, SUMS = 2048, 8, 8
PLAIN = {**COEFFICIENTS, "denominator": 1500.0}
EXTRAS = {**PLAIN, "entropy_coef": 0.01, "kl_loss_coef": 0.05}


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """Each input and gradient once, 64 bytes a tile both ways; then backward scales: the suite's slope is not 1."""
    tokens = inputs["logprobs"].numel()
    tiles = -(-tokens // TILE)
    forward: dict[str, Bytes] = {
        name: (value.nbytes, 0) for name, value in inputs.items()
    } | {
        "grad_logprobs": (0, 4 * tokens), "grad_values": (0, 4 * tokens), "loss": (0, 4), "stats": (0, 4 * SUMS),
        "scratch 0": (8 * SUMS * tiles, 8 * SUMS * tiles),
    }
    blocks = -(-tokens // 1024)
    backward: dict[str, Bytes] = {
        "grad_logprobs": (4 * tokens, 4 * tokens), "grad_values": (4 * tokens, 4 * tokens),
        "dloss": (4 * WARPS * blocks, 0),
    }
    if "entropy" in inputs:
        backward |= {"loss_mask": (tokens, 0), "grad_entropy": (0, 4 * tokens)}
    return {"ppo_loss": forward, "ppo_loss_backward": backward}


def tokens(rows: int, columns: int, *, extras: bool = False) -> Callable[[New], Inputs]:
    return lambda new: test_ppo_loss.batch(new, rows, columns, extras=extras)


def off_the_boundary(rows: int, columns: int) -> Callable[[New], Inputs]:
    """Every tensor one element behind what its fours would stand on."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape).copy_(tensor)

    return lambda new: {k: moved(v) for k, v in test_ppo_loss.batch(new, rows, columns, extras=True).items()}


class TestPpoLossKernels(KernelSuite):
    suite = test_ppo_loss.TestPpoLoss
    cases = (
        KernelCase("entropy and reference", tokens(2, 160, extras=True), options=EXTRAS, traffic=traffic),
        KernelCase("a ragged end", tokens(3, 67, extras=True), options=EXTRAS),
        KernelCase("off the boundary", off_the_boundary(3, 30), options=EXTRAS),
        KernelCase("two tiles", tokens(2, 1280), options=PLAIN, traffic=traffic),
        KernelCase("more tiles than blocks", tokens(5, 1700), options=PLAIN, multiprocessors=1),
    )
    equivalent: ClassVar = dict.fromkeys(
        (("shuffle_wrong_lane", "kept + shuffle_xor(given"), ("shuffle_wrong_lane", "shuffle_xor(values[0], 2)")),
        "neighbours trade partners, each value is still added once, and the last step adds neighbours",
    )


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


def moved_bytes(launch: simt.Launch) -> int:
    return sum(t.loaded_bytes + t.stored_bytes for t in launch.buffers.values())


@pytest.mark.parametrize("extras, a_token", [(False, 33), (True, 41)])
def test_both_passes_where_the_loss_begins_the_backward_pass(extras: bool, a_token: int) -> None:
    """Besides the tokens: 64 bytes a tile both ways, the results, and one number a warp of the backward launch."""
    inputs = test_ppo_loss.batch(New(torch.float32), 2, 2048, extras=extras)
    leaves = {k: v.requires_grad_(k in ("logprobs", "values")) for k, v in inputs.items()}
    with simt.executing(accounting=True) as run:
        ops.ppo_loss(**leaves, **(EXTRAS if extras else PLAIN)).loss.backward()
    assert [launch.kernel for launch in run.launches] == ["ppo_loss_tokens", "ppo_loss_scale"]
    count, tiles = 4096, 2
    assert moved_bytes(run.launches[0]) == a_token * count + tiles * 2 * 8 * SUMS + 4 + 4 * SUMS
    assert moved_bytes(run.launches[1]) == 4 * WARPS * 4


@pytest.mark.parametrize("inputs", [tokens(5, 1700, extras=True), off_the_boundary(2, 1100)], ids=["aligned", "off"])
def test_bits_depend_neither_on_multiprocessors_nor_on_the_boundary(inputs: Callable[[New], Inputs]) -> None:
    def results(given: Inputs, count: int) -> list[torch.Tensor]:
        leaves: dict[str, Any] = {k: v.detach() for k, v in given.items()}
        for name in ("logprobs", "values"):
            leaves[name].requires_grad_()
        with simt.executing(multiprocessors=count):
            result = ops.ppo_loss(**leaves, **EXTRAS)
            result.loss.backward()
        return [result.loss.detach(), result.stats, leaves["logprobs"].grad, leaves["values"].grad]

    drawn = inputs(New(torch.float32))
    first = results({k: v.clone() for k, v in drawn.items()}, 1)
    for count in (2, 9):
        assert all(same_bits(a, b) for a, b in zip(first, results(drawn, count), strict=True))


def test_nothing_to_train_on() -> None:
    """No tokens: one block writes the loss and the statistics of nothing."""
    inputs = test_ppo_loss.batch(New(torch.float32), 0, 5)
    with simt.executing():
        result = ops.ppo_loss(**inputs, **PLAIN)
    assert float(result.loss) == 0.0 and not result.stats.any()
