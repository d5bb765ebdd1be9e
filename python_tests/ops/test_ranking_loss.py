"""ranking_loss: four answers with a tie worked out by hand, an independent loop, and what every op shows."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage


def prompts(new: New, *sizes: int, ranks: int = 7, scale: float = 1.0) -> Inputs:
    """Groups of `sizes` answers; ranks drawn from so few numbers that some tie."""
    offsets = torch.tensor([0, *torch.tensor(sizes, dtype=torch.int64).cumsum(0).tolist()])
    total = int(offsets[-1])
    return {"scores": new(total, scale=scale), "ranks": new.ints(1, ranks + 1, total), "group_offsets": offsets}


class TestRankingLoss(OpSuite):
    name = "ranking_loss"
    op = staticmethod(ops.ranking_loss)
    oracle = staticmethod(ops.ranking_loss_oracle)
    yardstick = staticmethod(ops.ranking_loss_oracle)
    differentiable = ("scores",)
    dtypes = (torch.float32,)
    cases = (
        # The oracle loops over the groups by their sizes, and the compiled op gets its answers from the native one.
        Case("ragged", lambda new: prompts(new, 4, 9, 2, 7, 5, 6, 3, 8)),
        Case("many ties", lambda new: prompts(new, 9, 9, 9, 4, ranks=2)),
        Case("all tied, alone, none", lambda new: prompts(new, 5, 1, 0, ranks=1)),
        Case("sizes 0 and 1 between", lambda new: prompts(new, 0, 4, 1, 0, 9, 0)),
        Case("far apart", lambda new: prompts(new, *([6, 9] * 8), scale=60.0)),
        Case("one large group", lambda new: prompts(new, 70, ranks=70)),
        Case("many groups", lambda new: prompts(new, *([4, 5, 6, 7, 8, 9] * 12))),
        Case("no prompts", lambda new: prompts(new)),
    )
    sabotages = (
        Sabotage("order reversed", lambda i: {**i, "ranks": -i["ranks"]}),
        Sabotage("one rank off", lambda i: {**i, "ranks": i["ranks"] + (torch.arange(len(i["ranks"])) == 0) * 3}),
        Sabotage("neighbour's answer", lambda i: {**i, "scores": i["scores"].roll(1)}),
    )
    bad_calls = (
        BadCall("ranks", lambda i: {**i, "ranks": i["ranks"][1:]}, ValueError, r"ranks must have shape \(44,\)"),
        BadCall("rank dtype", lambda i: {**i, "ranks": i["ranks"].int()}, TypeError, "int64, got int32"),
        BadCall("score dtype", lambda i: {**i, "scores": i["scores"].bfloat16()}, TypeError, "float32, got bfloat16"),
        BadCall("offset start", lambda i: {**i, "group_offsets": i["group_offsets"] + 1}, ValueError, "start at 0"),
        BadCall("offset end", lambda i: {**i, "group_offsets": i["group_offsets"][:-1]}, ValueError, "44, got 0 and"),
        BadCall("offsets fall", lambda i: {**i, "group_offsets": i["group_offsets"][[0, 2, 1, 8]]}, ValueError,
                "13 then 4 at group 1"),
        BadCall("no offsets", lambda i: {**i, "group_offsets": i["group_offsets"][:0]}, ValueError, "P . 1"),
    )


def test_the_native_op_checks_the_offsets_too() -> None:
    """A compiled call does not pass the Python check; reading outside the scores must not happen there either."""
    raw = torch.ops.instructgpt_fast.ranking_loss
    for offsets, message in (([1, 3], "start at 0"), ([0, 4], "end at the number of scores"), ([0, 2, 1, 3], "fall")):
        with pytest.raises(RuntimeError, match=message):
            raw(torch.zeros(3), torch.zeros(3, dtype=torch.int64), torch.tensor(offsets), True)


def test_four_answers_with_a_tie_by_hand() -> None:
    """Ranks 1, 2, 2, 3 leave five of the six pairs; scores 2, 1, 0, 0 in that order.

    Margins s_w - s_l: (1st, 2nd) 1, (1st, 2nd') 2, (1st, 3rd) 2, (2nd, 3rd) 1, (2nd', 3rd) 0; each costs log(1 + e^-m):
        loss = (2 log(1 + e^-1) + 2 log(1 + e^-2) + log 2) / 5 = (0.6265233 + 0.2538560 + 0.6931472) / 5 = 0.3147053
    Four pairs agree with the ranks and the pair of equal scores counts half: 4.5 of 5. With g(m) = sigmoid(-m) / 5:
        d s_1 = -(g(1) + 2 g(2)), d s_2 = g(1) - g(1), d s_2' = g(2) - g(0), d s_3 = g(2) + g(1) + g(0)
    """
    order = torch.tensor([2, 0, 3, 1])  # the answers do not come in the order of their ranks
    scores = torch.tensor([2.0, 1.0, 0.0, 0.0])[order].requires_grad_()
    result = ops.ranking_loss(scores, torch.tensor([1, 2, 2, 3])[order], torch.tensor([0, 4]))
    # Five float32 terms below 1: a few parts in 10^7.
    assert result.loss.item() == pytest.approx(0.3147053, abs=2e-7)
    assert (int(result.num_prompts), int(result.num_pairs), float(result.num_correct)) == (1, 5, 4.5)
    result.loss.backward()
    g0, g1, g2 = (0.2 / (1 + math.exp(m)) for m in (0, 1, 2))
    expected = torch.tensor([-(g1 + 2 * g2), 0.0, g2 - g0, g2 + g1 + g0])[order]
    torch.testing.assert_close(scores.grad, expected, rtol=0, atol=1e-7)


def test_equals_a_loop_in_double_precision() -> None:
    """Ouyang eq. 1 pair by pair over K = 2 .. 9, its gradient by central differences."""
    inputs = prompts(New(torch.float32, seed=3), *range(2, 10))
    ranks, offsets = inputs["ranks"].tolist(), inputs["group_offsets"].tolist()

    def loop(scores: list[float]) -> tuple[float, int, int, float]:
        total, counted, pairs, correct = 0.0, 0, 0, 0.0
        for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
            margins = [scores[a] - scores[b] if ranks[a] < ranks[b] else scores[b] - scores[a]
                       for a, b in combinations(range(begin, end), 2) if ranks[a] != ranks[b]]
            if margins:
                total -= sum(math.log(1 / (1 + math.exp(-m))) for m in margins) / len(margins)
                counted, pairs = counted + 1, pairs + len(margins)
                correct += sum(m > 0 for m in margins)
        return total, counted, pairs, correct

    scores = inputs["scores"].double().tolist()
    result = ops.ranking_loss(**{**inputs, "scores": inputs["scores"].requires_grad_()})
    loss, counted, pairs, correct = loop(scores)
    assert result.loss.item() == pytest.approx(loss, abs=2e-6)  # eight float32 numbers near 1
    assert (int(result.num_prompts), int(result.num_pairs), float(result.num_correct)) == (counted, pairs, correct)
    result.loss.backward()
    for i in range(len(scores)):
        up, down = ([s + d * (j == i) for j, s in enumerate(scores)] for d in (1e-6, -1e-6))
        slope = (loop(up)[0] - loop(down)[0]) / 2e-6
        assert float(inputs["scores"].grad[i]) == pytest.approx(slope, abs=1e-6)


def test_four_distinct_ranks_are_all_six_pairs() -> None:
    """Without ties |P| is C(K, 2), the factor that eq. 1 prints; equal scores cost log 2 a pair."""
    for k in (2, 4, 9):
        result = ops.ranking_loss(torch.zeros(k), torch.arange(k), torch.tensor([0, k]))
        assert int(result.num_pairs) == k * (k - 1) // 2
        assert result.loss.item() == pytest.approx(math.log(2), abs=1e-7)
        assert float(result.num_correct) == k * (k - 1) / 4


def test_chosen_and_rejected_is_k_of_two() -> None:
    scores = torch.tensor([1.5, -0.5])
    expected = -torch.nn.functional.logsigmoid(torch.tensor(2.0))
    result = ops.ranking_loss(scores, torch.tensor([1, 2]), torch.tensor([0, 2]))
    torch.testing.assert_close(result.loss, expected, rtol=3e-7, atol=0)


def test_bits_do_not_depend_on_threads() -> None:
    inputs = prompts(New(torch.float32), *([9, 4, 7] * 40))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = inputs["scores"].clone().requires_grad_()
            loss = ops.ranking_loss(leaf, inputs["ranks"], inputs["group_offsets"]).loss
            results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_a_score_that_is_not_finite_is_seen() -> None:
    loss = ops.ranking_loss(torch.tensor([float("nan"), 0.0]), torch.tensor([1, 2]), torch.tensor([0, 2])).loss
    assert math.isnan(float(loss))


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fake where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        scores = torch.empty(6, device="cuda")  # autograd for fake CUDA tensors ends a torch without CUDA
        integers = [torch.zeros(count, dtype=torch.int64, device="cuda") for count in (6, 3)]
        if "ranking_loss" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="ranking_loss: has no CUDA kernel"):
                ops.ranking_loss(scores, *integers)
            return
        result = ops.ranking_loss(scores, *integers)
        assert all(value.device.type == "cuda" and value.shape == () for value in result)
        gradient = torch.ops.instructgpt_fast.ranking_loss(scores, *integers, True)[-1]
        assert (gradient.device.type, gradient.dtype, tuple(gradient.shape)) == ("cuda", torch.float32, (6,))
