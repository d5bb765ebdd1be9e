"""ppo_loss: both clips worked out by hand, independent scalar loops, and what every op shows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from instructgpt_fast.ops.ppo_loss import STATS
from python_tests.accuracy import compare, same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage

COEFFICIENTS = {"cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1}
PER_TOKEN = ("logprobs", "old_logprobs", "advantages", "values", "old_values", "returns", "entropy", "ref_logprobs")


def batch(new: New, rows: int, columns: int, *, extras: bool = False, p: float = 0.7, far: float = 0.3) -> Inputs:
    """Old and new numbers apart by about `far`, so that both clips bind at many tokens and are free at many."""
    old, old_values = new(rows, columns, scale=2.0, shift=-3.0), new(rows, columns)
    inputs = {
        "logprobs": old + new(rows, columns, scale=far),
        "old_logprobs": old,
        "advantages": new(rows, columns),
        "values": old_values + new(rows, columns, scale=far),
        "old_values": old_values,
        "returns": old_values + new(rows, columns),
        "loss_mask": new.mask(rows, columns, p=p),
    }
    if extras:
        inputs["entropy"] = new(rows, columns).abs()
        inputs["ref_logprobs"] = inputs["logprobs"].detach() + new(rows, columns, scale=far)
    return inputs


def poison(inputs: Inputs) -> Inputs | None:
    if bool(inputs["loss_mask"].all()):
        return None
    nan = float("nan")
    return {k: v.masked_fill(~inputs["loss_mask"], nan) if k in PER_TOKEN else v for k, v in inputs.items()}


def one_more(loss_mask: torch.Tensor) -> torch.Tensor:
    """The mask with its first uncounted token counted."""
    off = (~loss_mask).nonzero()
    more = loss_mask.clone()
    for place in off[:1]:
        more[tuple(place)] = True
    return more


class TestPpoLoss(OpSuite):
    name = "ppo_loss"
    op = staticmethod(ops.ppo_loss)
    oracle = staticmethod(ops.ppo_loss_oracle)
    yardstick = staticmethod(ops.ppo_loss_oracle)
    differentiable = ("logprobs", "values", "entropy")
    dtypes = (torch.float32,)
    poison = staticmethod(poison)

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        if what == "output 0":
            why = "one number, a sum of terms of both signs: plain PyTorch's error in it can be 0 by luck"
            return {"ulps": 4.0, "why_looser": why}
        if not what.startswith("grad"):
            return {}
        why = "the suite's gradient of the loss is not 1, and multiplies gradients that are rounded already"
        return {"rms_factor": 1.25 * math.sqrt(2), "why_looser": why}

    cases = (
        Case("clips alone", lambda new: batch(new, 7, 61), {**COEFFICIENTS, "denominator": 300.0}),
        Case("entropy and reference", lambda new: batch(new, 7, 61, extras=True),
             {**COEFFICIENTS, "entropy_coef": 0.01, "kl_loss_coef": 0.05, "denominator": 300.0}),
        Case("several blocks", lambda new: batch(new, 11, 1021, extras=True),
             {**COEFFICIENTS, "entropy_coef": 0.01, "kl_loss_coef": 0.05, "denominator": 8000.0}),
        Case("hardly left the reference", lambda new: batch(new, 3, 80, extras=True, far=1e-3),
             {**COEFFICIENTS, "kl_loss_coef": 1.0, "denominator": 168.0}),
        Case("first minibatch", lambda new: batch(new, 3, 40, far=0.0), {**COEFFICIENTS, "denominator": 84.0}),
        Case("nothing counts", lambda new: batch(new, 2, 5, extras=True, p=-1.0), {**COEFFICIENTS, "denominator": 1.0}),
        Case("no rows", lambda new: batch(new, 0, 5, extras=True), {**COEFFICIENTS, "denominator": 1.0}),
    )
    sabotages = (
        Sabotage("mask ignored", lambda i: {**i, "loss_mask": torch.ones_like(i["loss_mask"])}),
        Sabotage("one token unmasked", lambda i: {**i, "loss_mask": one_more(i["loss_mask"])}),
        Sabotage("old log-probs one to the left", lambda i: {**i, "old_logprobs": i["old_logprobs"].roll(-1, 1)}),
    )
    bad_calls = (
        BadCall("shape", lambda i: {**i, "returns": i["returns"][:, 1:]}, ValueError, r"returns.*\(7, 61\).*\(7, 60\)"),
        BadCall("mask dtype", lambda i: {**i, "loss_mask": i["loss_mask"].int()}, TypeError, "bool, got int32"),
        BadCall("dtype", lambda i: {**i, "values": i["values"].bfloat16()}, TypeError, "float32, got bfloat16"),
        BadCall("flat", lambda i: {**i, "logprobs": i["logprobs"][0]}, ValueError, "2 dimensions"),
        BadCall("denominator", lambda i: {**i, "denominator": 0.0}, ValueError, "denominator must be finite"),
        BadCall("cliprange", lambda i: {**i, "cliprange": -0.2}, ValueError, "cliprange must be finite and above 0"),
        BadCall("coefficient", lambda i: {**i, "vf_coef": math.inf}, ValueError, "vf_coef must be finite, got inf"),
        BadCall("no entropy", lambda i: {**i, "entropy_coef": 0.1}, ValueError, "entropy_coef 0.1 needs entropy"),
        BadCall("no reference", lambda i: {**i, "kl_loss_coef": 0.1}, ValueError, "needs ref_logprobs"),
        BadCall("constant", lambda i: {**i, "returns": i["returns"].requires_grad_()}, ValueError, "returns.detach"),
    )


def one_token(**changed: float) -> tuple[ops.PpoLoss, float, float]:
    """The loss of one token, and its gradients to the log-probability and the value."""
    inputs = {"logprobs": -1.0, "old_logprobs": -1.0, "advantages": 0.0, "values": 0.0, "old_values": 0.0,
              "returns": 0.0, **changed}
    tensors = {k: torch.tensor([[v]]) for k, v in inputs.items()}
    for name in ("logprobs", "values"):
        tensors[name].requires_grad_()
    result = ops.ppo_loss(**tensors, loss_mask=torch.ones(1, 1, dtype=torch.bool), cliprange=0.2,
                          cliprange_value=0.2, vf_coef=1.0, denominator=1.0)
    result.loss.backward()
    return result, float(tensors["logprobs"].grad), float(tensors["values"].grad)


# One float32 exponential and a product or two: a few parts in 10^7.
CLOSE = 1e-6


@pytest.mark.parametrize(("ratio", "advantage", "policy", "slope", "clipped"), [
    # Worked out from max(-A r, -A clip(r, 0.8, 1.2)); the gradient to log pi of -A r is -A r, of a clipped term 0.
    (1.5, 2.0, -2.4, 0.0, 1.0),    # A > 0, r above: max(-3.0, -2.4): clipped, no gain in going further
    (0.5, 2.0, -1.0, -1.0, 0.0),   # A > 0, r below: max(-1.0, -1.6): free, the way back is open
    (1.5, -2.0, 3.0, 3.0, 0.0),    # A < 0, r above: max(3.0, 2.4): free
    (0.5, -2.0, 1.6, 0.0, 1.0),    # A < 0, r below: max(1.0, 1.6): clipped
    (1.1, 2.0, -2.2, -2.2, 0.0),   # inside both ends: both terms equal, free
    (0.9, -2.0, 1.8, 1.8, 0.0),
    (1.0, 0.0, 0.0, 0.0, 0.0),
])
def test_policy_clip_by_hand(ratio: float, advantage: float, policy: float, slope: float, clipped: float) -> None:
    result, dlogprob, _ = one_token(logprobs=-1.0 + math.log(ratio), advantages=advantage)
    assert result.loss.item() == pytest.approx(policy, abs=CLOSE)
    assert float(result.policy_loss) == pytest.approx(policy, abs=CLOSE)
    assert dlogprob == pytest.approx(slope, abs=CLOSE)
    assert float(result.clipfrac) == clipped
    assert float(result.ratio_mean) == pytest.approx(ratio, abs=CLOSE)
    assert float(result.approx_kl) == pytest.approx(0.5 * math.log(ratio) ** 2, abs=CLOSE)


@pytest.mark.parametrize(("value", "target", "loss", "slope", "clipped"), [
    # The old value is 0, so the bounded value is clip(value, -0.2, 0.2).
    (0.5, 1.0, 0.32, 0.0, 1.0),     # 0.5 max(0.25, (0.2 - 1)^2 = 0.64): moved up enough already
    (0.5, -1.0, 1.125, 1.5, 0.0),   # 0.5 max(2.25, (0.2 + 1)^2 = 1.44): the way back is open
    (-0.5, -1.0, 0.32, 0.0, 1.0),   # the same downwards
    (-0.5, 1.0, 1.125, -1.5, 0.0),
    (0.1, 1.0, 0.405, -0.9, 0.0),   # inside: 0.5 * 0.81
])
def test_value_clip_by_hand(value: float, target: float, loss: float, slope: float, clipped: float) -> None:
    result, _, dvalue = one_token(values=value, returns=target)
    assert result.loss.item() == pytest.approx(loss, abs=CLOSE)
    assert float(result.value_loss) == pytest.approx(loss, abs=CLOSE)
    assert dvalue == pytest.approx(slope, abs=CLOSE)
    assert float(result.value_clipfrac) == clipped


def scalar_loop(i: dict[str, list[float]], mask: list[bool], c: dict[str, float]) -> tuple[float, dict[str, float]]:
    """The loss and the statistics by Python arithmetic, token after token, written without the op's formulas."""
    totals = dict.fromkeys(STATS, 0.0)
    for t in (t for t, counted in enumerate(mask) if counted):
        ratio = math.exp(i["logprobs"][t]) / math.exp(i["old_logprobs"][t])
        advantage = i["advantages"][t]
        # eq. 7 is a minimum to be maximised: with A > 0 the gain stops at 1 + e, with A < 0 at 1 - e.
        gain = min(ratio * advantage, min(max(ratio, 1 - c["cliprange"]), 1 + c["cliprange"]) * advantage)
        reach = min(max(i["values"][t] - i["old_values"][t], -c["cliprange_value"]), c["cliprange_value"])
        errors = [(i["values"][t] - i["returns"][t]) ** 2, (i["old_values"][t] + reach - i["returns"][t]) ** 2]
        reference = math.exp(i["ref_logprobs"][t]) / math.exp(i["logprobs"][t])
        totals["policy_loss"] -= gain
        totals["value_loss"] += max(errors) / 2
        totals["entropy"] += i["entropy"][t]
        totals["clipfrac"] += gain < ratio * advantage
        totals["value_clipfrac"] += errors[1] > errors[0]
        totals["approx_kl"] += (i["logprobs"][t] - i["old_logprobs"][t]) ** 2 / 2
        totals["ratio_mean"] += ratio
        totals["kl"] += reference - 1 - math.log(reference)
    means = {name: total / c["denominator"] for name, total in totals.items()}
    loss = (means["policy_loss"] + c["vf_coef"] * means["value_loss"] - c["entropy_coef"] * means["entropy"]
            + c["kl_loss_coef"] * means["kl"])
    return loss, means


def test_equals_a_loop_in_double_precision() -> None:
    """Loss, statistics and gradients, the latter by central differences of the loop."""
    options = {**COEFFICIENTS, "entropy_coef": 0.02, "kl_loss_coef": 0.3, "denominator": 20.0}
    inputs = batch(New(torch.float32, seed=5), 3, 9, extras=True)
    mask = inputs.pop("loss_mask")
    lists = {k: v.double().reshape(-1).tolist() for k, v in inputs.items()}
    loss, means = scalar_loop(lists, mask.reshape(-1).tolist(), options)
    leaves = {k: v.requires_grad_(k in TestPpoLoss.differentiable) for k, v in inputs.items()}
    result = ops.ppo_loss(**leaves, loss_mask=mask, **options)
    # Twenty float32 terms of size 1: rounding of about 1e-7 each, averaged.
    assert result.loss.item() == pytest.approx(loss, abs=1e-6)
    for name in STATS:
        assert float(getattr(result, name)) == pytest.approx(means[name], abs=1e-6), name
    result.loss.backward()
    step = 1e-6
    for name in TestPpoLoss.differentiable:
        for t in range(27):
            ends = []
            for sign in (1, -1):
                moved = {**lists, name: [v + sign * step * (u == t) for u, v in enumerate(lists[name])]}
                ends.append(scalar_loop(moved, mask.reshape(-1).tolist(), options)[0])
            slope = (ends[0] - ends[1]) / (2 * step)
            # Central differences of a double: about 1e-16 / 1e-6 of rounding; float32 adds 1e-7 of a slope below 1.
            assert float(leaves[name].grad.reshape(-1)[t]) == pytest.approx(slope, abs=1e-6), (name, t)


def test_the_first_update_leaves_ratio_and_kl_exact() -> None:
    """Equal log-probs give ratio 1, approx-KL 0 and KL 0 to the bit: the invariants of step 0 rest on it."""
    inputs = batch(New(torch.float32), 4, 33, far=0.0, p=1.1)
    result = ops.ppo_loss(**inputs, **COEFFICIENTS, ref_logprobs=inputs["logprobs"], denominator=4 * 33)
    assert [float(result.ratio_mean), float(result.approx_kl), float(result.kl), float(result.clipfrac)] == [1, 0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_gradients_where_the_backward_pass_begins(seed: int) -> None:
    """With a loss whose own gradient is 1 they keep to the rule as it stands."""
    options = {**COEFFICIENTS, "entropy_coef": 0.02, "kl_loss_coef": 0.3, "denominator": 300.0}

    def gradients(function: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        drawn = batch(New(torch.float32, seed=seed), 7, 61, extras=True)
        leaves = {k: v.to(dtype) if v.is_floating_point() else v for k, v in drawn.items()}
        wanted = {k: leaves[k].requires_grad_() for k in TestPpoLoss.differentiable}
        function(**leaves, **options).loss.backward()
        return {k: v.grad for k, v in wanted.items()}

    oracle = gradients(ops.ppo_loss_oracle, torch.float64)
    plain = gradients(ops.ppo_loss_oracle, torch.float32)
    for name, gradient in gradients(ops.ppo_loss, torch.float32).items():
        compare(gradient, oracle[name], plain[name], name=name)


def test_a_kept_graph_gives_its_gradients_again() -> None:
    """The first pass hands out the gradients that the forward pass wrote; a second one must not find them changed."""
    inputs = batch(New(torch.float32), 3, 50, extras=True)
    leaves = {k: v.requires_grad_(k in TestPpoLoss.differentiable) for k, v in inputs.items()}
    loss = ops.ppo_loss(**leaves, **COEFFICIENTS, entropy_coef=0.1, denominator=100.0).loss
    wanted = [leaves[k] for k in TestPpoLoss.differentiable]
    slope = torch.tensor(2.0)
    first = [g.clone() for g in torch.autograd.grad(loss, wanted, retain_graph=True)]
    twice = torch.autograd.grad(loss, wanted, slope, retain_graph=True)
    again = torch.autograd.grad(loss, wanted)
    assert all(same_bits(a, b) for a, b in zip(first, again, strict=True))
    assert all(same_bits(2 * a, b) for a, b in zip(first, twice, strict=True))


def test_accumulation_equals_the_large_batch() -> None:
    """With one denominator for the whole batch, the gradients of its parts are those of the whole, bit for bit."""
    options = {**COEFFICIENTS, "denominator": 500.0}

    def gradient(rows: slice) -> torch.Tensor:
        inputs: dict[str, Any] = {k: v[rows] for k, v in batch(New(torch.float32), 8, 90).items()}
        inputs["logprobs"] = inputs["logprobs"].clone().requires_grad_()
        ops.ppo_loss(**inputs, **options).loss.backward()
        return inputs["logprobs"].grad

    parts = torch.cat([gradient(slice(0, 3)), gradient(slice(3, 8))])
    assert same_bits(parts, gradient(slice(0, 8)))


def test_bits_do_not_depend_on_threads() -> None:
    inputs = batch(New(torch.float32), 16, 1000, extras=True)
    options = {**COEFFICIENTS, "entropy_coef": 0.1, "kl_loss_coef": 0.1, "denominator": 1.0}
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(ops.ppo_loss(**inputs, **options))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_a_number_that_is_not_finite_is_seen_when_it_counts() -> None:
    inputs = batch(New(torch.float32), 2, 8, p=1.1)
    inputs["logprobs"][1, 3] = float("nan")
    result = ops.ppo_loss(**inputs, **COEFFICIENTS, denominator=16.0)
    assert math.isnan(result.loss.item()) and math.isnan(float(result.policy_loss))


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fakes where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        a = torch.empty(4, 6, device="cuda")
        inputs = dict.fromkeys(PER_TOKEN[:6], a) | {"loss_mask": torch.empty(4, 6, device="cuda", dtype=torch.bool)}
        if "ppo_loss" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="ppo_loss: has no CUDA kernel"):
                ops.ppo_loss(**inputs, **COEFFICIENTS, denominator=1.0)
            return
        result = ops.ppo_loss(**inputs, **COEFFICIENTS, denominator=1.0)
        assert (result.loss.device.type, tuple(result.stats.shape)) == ("cuda", (8,))
        # Raw, because a torch without CUDA cannot carry out autograd for fake CUDA tensors.
        raw = torch.ops.instructgpt_fast.ppo_loss(*inputs.values(), None, None, 0.2, 0.2, 0.1, 0.0, 0.0, 1.0, True)
        assert [tuple(t.shape) for t in raw] == [(), (8,), (4, 6), (4, 6)]
        slope = torch.ops.instructgpt_fast.ppo_loss_backward(raw[2], raw[3], None, raw[0], 0.0, 1.0)
        assert slope.device.type == "cuda"
