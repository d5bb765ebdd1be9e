"""gae: values worked out by hand, an independent sum over future deltas, and what every op shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage

GAMMA, LAM = 0.9, 0.5


def episode(new: New, rows: int, columns: int, p: float = 0.7) -> Inputs:
    return {"rewards": new(rows, columns), "values": new(rows, columns), "loss_mask": new.mask(rows, columns, p=p)}


def poison(inputs: Inputs) -> Inputs | None:
    if bool(inputs["loss_mask"].all()):
        return None
    behind = {k: inputs[k].masked_fill(~inputs["loss_mask"], float("nan")) for k in ("rewards", "values")}
    return {**inputs, **behind}


class TestGae(OpSuite):
    name = "gae"
    op = staticmethod(ops.gae)
    oracle = staticmethod(ops.gae_oracle)
    yardstick = staticmethod(ops.gae_oracle)  # plain PyTorch has no shorter way than the loop over columns
    dtypes = (torch.float32,)
    poison = staticmethod(poison)
    cases = (
        Case("ragged", lambda new: episode(new, 35, 50), {"gamma": GAMMA, "lam": LAM}),
        Case("as in the paper", lambda new: episode(new, 3, 200), {"gamma": 1.0, "lam": 0.95}),
        Case("all count", lambda new: episode(new, 16, 32, p=1.1)),
        Case("one token", lambda new: episode(new, 2, 1, p=1.1)),
        Case("nothing counts", lambda new: episode(new, 4, 6, p=-1.0)),
        Case("no rows", lambda new: episode(new, 0, 6)),
        Case("no columns", lambda new: episode(new, 3, 0)),
    )
    sabotages = (
        Sabotage("mask ignored", lambda i: {**i, "loss_mask": torch.ones_like(i["loss_mask"])}),
        Sabotage("values one to the left", lambda i: {**i, "values": i["values"].roll(-1, 1)}),
    )
    bad_calls = (
        BadCall("shape", lambda i: {**i, "values": i["values"][:, 1:]}, ValueError, r"\(35, 50\).*\(35, 49\)"),
        BadCall("mask dtype", lambda i: {**i, "loss_mask": i["loss_mask"].float()}, TypeError, "bool, got float32"),
        BadCall("dtype", lambda i: {**i, "rewards": i["rewards"].double()}, TypeError, "float32, got float64"),
        BadCall("lam", lambda i: {**i, "lam": 1.5}, ValueError, r"lam must be in \[0, 1\], got 1.5"),
        BadCall("grad", lambda i: {**i, "values": i["values"].requires_grad_()}, ValueError, "detach"),
    )


def shaped_episode(new: New, rows: int, columns: int, p: float = 0.7) -> Inputs:
    logprobs = new(rows, columns, shift=-2.0)
    return {"logprobs": logprobs, "ref_logprobs": logprobs + new(rows, columns, scale=0.3), "scores": new(rows),
            "values": new(rows, columns), "loss_mask": new.mask(rows, columns, p=p)}


def shaped_poison(inputs: Inputs) -> Inputs | None:
    if bool(inputs["loss_mask"].all()):
        return None
    nan, mask = float("nan"), inputs["loss_mask"]
    behind = {k: inputs[k].masked_fill(~mask, nan) for k in ("logprobs", "ref_logprobs", "values")}
    return {**inputs, **behind, "scores": inputs["scores"].masked_fill(~mask.any(dim=1), nan)}


class TestShapedGae(OpSuite):
    name = "shaped_gae"
    op = staticmethod(ops.shaped_gae)
    oracle = staticmethod(ops.shaped_gae_oracle)
    yardstick = staticmethod(ops.shaped_gae_oracle)
    dtypes = (torch.float32,)
    poison = staticmethod(shaped_poison)
    cases = (
        Case("ragged", lambda new: shaped_episode(new, 35, 50), {"kl_coef": 0.5, "gamma": GAMMA, "lam": LAM}),
        Case("as in the paper", lambda new: shaped_episode(new, 3, 200), {"kl_coef": 0.02}),
        Case("all count", lambda new: shaped_episode(new, 16, 32, p=1.1), {"kl_coef": 1.0}),
        Case("no penalty", lambda new: shaped_episode(new, 12, 39), {"kl_coef": 0.0}),
        Case("one token", lambda new: shaped_episode(new, 2, 1, p=1.1), {"kl_coef": 0.1}),
        Case("nothing counts", lambda new: shaped_episode(new, 4, 6, p=-1.0), {"kl_coef": 0.1}),
        Case("no rows", lambda new: shaped_episode(new, 0, 6), {"kl_coef": 0.1}),
        Case("no columns", lambda new: shaped_episode(new, 3, 0), {"kl_coef": 0.1}),
    )
    sabotages = (
        Sabotage("mask ignored", lambda i: {**i, "loss_mask": torch.ones_like(i["loss_mask"])}),
        Sabotage("reference left out", lambda i: {**i, "ref_logprobs": i["logprobs"]}),
        Sabotage("another row's score", lambda i: {**i, "scores": i["scores"].roll(1)}),
    )
    bad_calls = (
        BadCall("shape", lambda i: {**i, "values": i["values"][:, 1:]}, ValueError, r"\(35, 50\).*\(35, 49\)"),
        BadCall("scores", lambda i: {**i, "scores": i["scores"][1:]}, ValueError, r"\(35,\).*\(34,\)"),
        BadCall("scores dtype", lambda i: {**i, "scores": i["scores"].half()}, TypeError, "float32, got float16"),
        BadCall("mask dtype", lambda i: {**i, "loss_mask": i["loss_mask"].float()}, TypeError, "bool, got float32"),
        BadCall("coefficient", lambda i: {**i, "kl_coef": math.nan}, ValueError, "kl_coef must be finite, got nan"),
        BadCall("gamma", lambda i: {**i, "gamma": -0.1}, ValueError, r"gamma must be in \[0, 1\], got -0.1"),
        BadCall("grad", lambda i: {**i, "logprobs": i["logprobs"].requires_grad_()}, ValueError, "detach"),
        BadCall("scores grad", lambda i: {**i, "scores": i["scores"].requires_grad_()}, ValueError, "scores.detach"),
    )


def test_rewards_by_hand() -> None:
    """The penalty on every counted token, the score on the last one: exact in float32."""
    kl = torch.tensor([[0.5, -1.0, 2.0], [4.0, 9.0, 9.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    scores, reference = torch.tensor([3.0, -1.0, 5.0]), torch.full((3, 3), -2.0)
    result = ops.shaped_gae(reference + kl, reference, scores, torch.zeros(3, 3), mask, kl_coef=0.5, lam=1.0)
    assert torch.equal(result.kl, torch.tensor([[0.5, -1.0, 2.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    rewards = torch.tensor([[-0.25, 0.5, 3.0 - 1.0], [-1.0 - 2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(result.rewards, rewards)
    assert torch.equal(result.returns, torch.tensor([[2.25, 2.5, 2.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_shaping_and_gae_apart_give_the_same_bits() -> None:
    """As torch would form the rewards, then the op on those: a run may be resumed by either."""
    inputs = shaped_episode(New(torch.float32), 9, 701)
    inputs["loss_mask"][:, 0] = True
    options = {"gamma": 0.99, "lam": 0.95}
    fused = ops.shaped_gae(**inputs, kl_coef=0.07, **options)
    mask = inputs["loss_mask"]
    kl = (inputs["logprobs"] - inputs["ref_logprobs"]).masked_fill(~mask, 0.0)
    rewards = kl * -0.07
    last = torch.arange(701).masked_fill(~mask, -1).amax(dim=1)
    rewards[torch.arange(9), last] += inputs["scores"]
    apart = ops.gae(rewards, inputs["values"], mask, **options)
    assert same_bits(fused.kl, kl) and torch.equal(fused.rewards, rewards)
    assert all(same_bits(a, b) for a, b in zip(apart, fused[2:], strict=True))


def test_two_rows_of_four_by_hand() -> None:
    """gamma 0.9, lambda 0.5, so a delta reaches back by 0.45.

    Row 0 counts all four. From the end, with r = (1, 0, 0, 2) and V = (1, 2, 3, 4):
        A3 = 2 - 4                            = -2
        A2 = 0 + 0.9 * 4 - 3 + 0.45 * -2      =  0.6 - 0.9     = -0.3
        A1 = 0 + 0.9 * 3 - 2 + 0.45 * -0.3    =  0.7 - 0.135   =  0.565
        A0 = 1 + 0.9 * 2 - 1 + 0.45 * 0.565   =  1.8 + 0.25425 =  2.05425
    Row 1 counts tokens 0 and 2; token 1 is skipped over, token 3 is as if absent:
        A2 = 2 - 3                            = -1
        A0 = 1 + 0.9 * 3 - 1 + 0.45 * -1      =  2.7 - 0.45    =  2.25
    """
    nan = float("nan")
    rewards = torch.tensor([[1.0, 0.0, 0.0, 2.0], [1.0, nan, 2.0, nan]])
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, nan, 3.0, nan]])
    loss_mask = torch.tensor([[True, True, True, True], [True, False, True, False]])
    advantages, returns = ops.gae(rewards, values, loss_mask, gamma=GAMMA, lam=LAM)
    expected = torch.tensor([[2.05425, 0.565, -0.3, -2.0], [2.25, 0.0, -1.0, 0.0]])
    expected_returns = torch.tensor([[3.05425, 2.565, 2.7, 2.0], [3.25, 0.0, 2.0, 0.0]])
    # A handful of float32 operations on numbers below 4: each rounds by at most 2.4e-7.
    torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(returns, expected_returns, rtol=0, atol=1e-6)


def test_equals_the_sum_over_future_deltas() -> None:
    """Eq. 16 as it is printed, A_t = sum over l of (gamma lambda)^l delta_{t+l}, on each row's counted tokens alone."""
    torch.manual_seed(0)
    rewards, values, loss_mask = torch.randn(5, 40), torch.randn(5, 40), torch.rand(5, 40) < 0.6
    advantages, _ = ops.gae(rewards, values, loss_mask, gamma=0.97, lam=0.9)
    for row in range(5):
        r = rewards[row][loss_mask[row]].double().tolist()
        v = [*values[row][loss_mask[row]].double().tolist(), 0.0]
        deltas = [r[t] + 0.97 * v[t + 1] - v[t] for t in range(len(r))]
        printed = [sum((0.97 * 0.9) ** (s - t) * deltas[s] for s in range(t, len(r))) for t in range(len(r))]
        got = advantages[row][loss_mask[row]].double()
        # About ten float32 roundings matter before the decay has forgotten them, each at most 2.4e-7 below 4.
        torch.testing.assert_close(got, torch.tensor(printed, dtype=torch.float64), rtol=0, atol=5e-6)


def test_a_row_does_not_depend_on_the_others() -> None:
    inputs = episode(New(torch.float32), 21, 3700)  # long enough for several threads
    together = ops.gae(**inputs)
    for row in (0, 9, 20):
        alone = ops.gae(**{k: v[row:row + 1] for k, v in inputs.items()})
        assert all(same_bits(a[0], t[row]) for a, t in zip(alone, together, strict=True))


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        a, mask = torch.empty(4, 6, device="cuda"), torch.empty(4, 6, device="cuda", dtype=torch.bool)
        scores = torch.empty(4, device="cuda")
        if "gae" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="gae: has no CUDA kernel"):
                ops.gae(a, a, mask)
            with pytest.raises(BackendError, match="shaped_gae: has no CUDA kernel"):
                ops.shaped_gae(a, a, scores, a, mask, kl_coef=0.1)
            return
        for result in (*ops.gae(a, a, mask), *ops.shaped_gae(a, a, scores, a, mask, kl_coef=0.1)):
            assert (result.device.type, tuple(result.shape)) == ("cuda", (4, 6))
