"""ranking_loss's kernel: inputs read once for groups of up to 32 answers, large groups by tiles, bad offsets as NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_ranking_loss
from python_tests.ops.suite import Inputs, New

GROUPS, TILE = 8, 256


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """Small groups: everything once. A large one: its answers, and all of them again for each of its tiles."""
    sizes = inputs["group_offsets"].diff().tolist()
    blocks = max(1, -(-len(sizes) // GROUPS))
    answers = sum(size if size <= 32 else size * (1 + -(-size // TILE)) for size in sizes)
    large = sum(size for size in sizes if size > 32)
    return {
        "ranking_loss": {
            "scores": (4 * answers, 0),
            "ranks": (8 * answers, 0),
            "group_offsets": (8 * (len(sizes) + blocks), 0),
            "grad_scores": (4 * large, 4 * (sum(sizes) + large)),
            "scratch 0": (32 * blocks, 32 * blocks),
            "loss": (0, 4),
            "num_prompts": (0, 8),
            "num_pairs": (0, 8),
            "num_correct": (0, 4),
        }
    }


def groups(*sizes: int, ranks: int = 7) -> Callable[[New], Inputs]:
    def inputs(new: New) -> Inputs:
        return test_ranking_loss.prompts(new, *sizes, ranks=ranks)

    return inputs


class TestRankingLossKernels(KernelSuite):
    suite = test_ranking_loss.TestRankingLoss
    cases = (
        KernelCase("ragged", groups(4, 9, 2, 7, 5, 6, 3, 8, 4, 4, 9), traffic=traffic),
        KernelCase("a full warp and a large group", groups(32, 33, 5, ranks=40), traffic=traffic),
        KernelCase("two tiles", groups(3, 260, ranks=90), traffic=traffic),
        KernelCase("ties and nothing", groups(5, 1, 0, 40, ranks=1)),
    )
    equivalent: ClassVar = {
        ("drop_barrier", "all of this block's writes are made"): "thread 0 alone writes what the last block reads",
        ("drop_barrier", "scratch has been read"): "the barriers around the tiles of the next group come in between",
    }
    more_sectors: ClassVar = dict.fromkeys(
        ("scores", "ranks", "group_offsets", "grad_scores"),
        (1.6, "a group begins where the last one ended, in the middle of a sector"),
    )


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


@pytest.mark.parametrize("offsets", [[1, 3], [0, 4], [0, 2], [0, 2, 1, 3], [0, -1, 3], [-1, 3], [0, 9, 3], [0]])
def test_bad_offsets_make_the_loss_nan(offsets: list[int]) -> None:
    """And nothing outside the scores is touched, which the emulator would not forgive."""
    overlapping = offsets == [0, 2, 1, 3]  # two groups would write one place of the gradient
    with simt.executing():
        raw = torch.ops.instructgpt_fast.ranking_loss
        loss, *_ = raw(torch.zeros(3), torch.arange(3), torch.tensor(offsets), not overlapping)
    assert math.isnan(float(loss))


def test_no_prompts() -> None:
    with simt.executing():
        result = ops.ranking_loss(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.tensor([0]))
    assert [float(value) for value in result] == [0.0, 0.0, 0.0, 0.0]


def test_bits_do_not_depend_on_the_number_of_multiprocessors() -> None:
    inputs = test_ranking_loss.prompts(New(torch.float32), *([9, 4, 7] * 12))
    results = []
    for count in (1, 3, 8):
        with simt.executing(multiprocessors=count):
            results.append(torch.ops.instructgpt_fast.ranking_loss(*inputs.values(), True))
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))
