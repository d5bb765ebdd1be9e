"""gae's kernels: 17 bytes a token, 29 with the rewards shaped on the way, and every broken word of the scan found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_gae
from python_tests.ops.suite import Inputs, New

DECAY = {"gamma": 0.97, "lam": 0.9}
PENALTY = {**DECAY, "kl_coef": 0.3}


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    tokens = inputs["values"].numel()
    return {"gae": {
        "rewards": (4 * tokens, 0), "values": (4 * tokens, 0), "loss_mask": (tokens, 0),
        "advantages": (0, 4 * tokens), "returns": (0, 4 * tokens),
    }}


def shaped_traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """The thread that holds a row's last counted token reads the score."""
    tokens, rows = inputs["values"].numel(), int(inputs["loss_mask"].any(dim=1).sum())
    return {"shaped_gae": {
        "logprobs": (4 * tokens, 0), "ref_logprobs": (4 * tokens, 0), "values": (4 * tokens, 0),
        "loss_mask": (tokens, 0), "scores": (4 * rows, 0),
        "kl": (0, 4 * tokens), "rewards": (0, 4 * tokens), "advantages": (0, 4 * tokens), "returns": (0, 4 * tokens),
    }}


def episode(rows: int, columns: int, p: float = 0.7) -> Callable[[New], Inputs]:
    return lambda new: test_gae.episode(new, rows, columns, p=p)


def shaped(rows: int, columns: int, p: float = 0.7) -> Callable[[New], Inputs]:
    return lambda new: test_gae.shaped_episode(new, rows, columns, p=p)


class TestGaeKernels(KernelSuite):
    suite = test_gae.TestGae
    cases = (
        KernelCase("a warp a row", episode(9, 128), options=DECAY, traffic=traffic),
        KernelCase("a block a row", episode(3, 512), options=DECAY, traffic=traffic),
        KernelCase("one token a thread, a warp a row", episode(9, 29), options=DECAY),
        KernelCase("one token a thread, a block a row", episode(4, 101), options=DECAY),
        KernelCase("few count", episode(3, 384, p=0.01), options=DECAY),
        KernelCase("several tiles", episode(1, 2056), options=DECAY),
        KernelCase("several tiles, one token a thread", episode(2, 530), options=DECAY),
        KernelCase("several tiles, few count", episode(2, 2560, p=0.002), options=DECAY),
    )


class TestShapedGaeKernels(KernelSuite):
    suite = test_gae.TestShapedGae
    cases = (
        KernelCase("a warp a row", shaped(9, 128), options=PENALTY, traffic=shaped_traffic),
        KernelCase("a block a row", shaped(3, 512), options=PENALTY, traffic=shaped_traffic),
        KernelCase("one token a thread", shaped(4, 101), options=PENALTY),
        KernelCase("few count", shaped(4, 384, p=0.03), options=PENALTY),
        KernelCase("several tiles", shaped(1, 2056), options=PENALTY),
        KernelCase("several tiles, few count", shaped(2, 2560, p=0.002), options=PENALTY),
    )


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


@pytest.mark.parametrize("columns", [1, 4, 31, 32, 33, 128, 132, 512, 516, 1021, 1024, 1028, 2048, 2052, 3001])
def test_all_widths(columns: int) -> None:
    """With lambda 1 the return of a token is the sum of the rewards from it on: integers, so exact."""
    generator = torch.Generator().manual_seed(columns)
    rewards = torch.randint(-8, 8, (2, columns), generator=generator).float()
    mask = torch.rand(2, columns, generator=generator) < 0.6
    with simt.executing(schedule="random", seed=columns):
        advantages, returns = ops.gae(rewards, torch.zeros(2, columns), mask, lam=1.0)
    togo = (rewards * mask).flip(1).cumsum(1).flip(1) * mask
    assert torch.equal(advantages, togo) and torch.equal(returns, togo)


@pytest.mark.parametrize("columns", [50, 52, 700])
def test_a_row_does_not_depend_on_the_others(columns: int) -> None:
    inputs = test_gae.shaped_episode(New(torch.float32), 5, columns)
    with simt.executing():
        together = ops.shaped_gae(**inputs, kl_coef=0.3)
        alone = [ops.shaped_gae(**{k: v[row:row + 1] for k, v in inputs.items()}, kl_coef=0.3) for row in range(5)]
    for row, results in enumerate(alone):
        assert all(same_bits(a[0], t[row]) for a, t in zip(results, together, strict=True))
