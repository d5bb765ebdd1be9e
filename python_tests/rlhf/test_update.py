"""The PPO gradient of a minibatch: a hand-written formula, micro batches, and what it must not touch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from instructgpt_fast.rlhf.batch import pad
from instructgpt_fast.rlhf.metrics import sum_stats
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import rollout_values
from instructgpt_fast.rlhf.update import Experience, PpoObjective, from_rollout, ppo_backward, select

from .tiny import plain_logprobs, tiny_gpt, tiny_rollout, tiny_scalar

OBJECTIVE = PpoObjective(cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, temperature=1.0)


def experience_of(rollout: Rollout, old_values: Tensor) -> Experience:
    generator = torch.Generator().manual_seed(11)
    advantages = torch.randn(rollout.loss_mask.shape, generator=generator) * rollout.loss_mask
    return from_rollout(
        rollout, old_logprobs=rollout.logprobs, ref_logprobs=rollout.logprobs, old_values=old_values,
        advantages=advantages, returns=(old_values + advantages) * rollout.loss_mask,
    )


def gradients(*models: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for model in models for p in model.parameters() if p.grad is not None]


def assert_close_gradients(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        # float32 sums in another order; the scale of a tensor's gradient is its largest entry.
        assert (a - b).abs().max() <= 5e-5 * b.abs().max() + 1e-9


def test_first_gradient_is_the_policy_gradient() -> None:
    """At ratio 1 the clipped objective's gradient is -mean A grad log pi, and the value's is vf_coef * mean (V - R)."""
    policy, value_model = tiny_gpt(), tiny_scalar()
    rollout = tiny_rollout(policy)
    experience = experience_of(rollout, rollout_values(value_model, rollout, max_tokens=1000))
    count = experience.num_tokens
    result = ppo_backward(policy, value_model, experience, OBJECTIVE, denominator=count)
    assert abs(float(result.ratio_mean) - 1.0) < 1e-5  # sampler and trainer agree to float32 rounding
    assert float(result.approx_kl) < 1e-9
    assert float(result.clipfrac) == 0.0
    found_policy, found_value = gradients(policy), gradients(value_model)
    policy.zero_grad()
    value_model.zero_grad()

    total, errors = torch.zeros((), dtype=torch.float64), []
    for row, (prompt, response) in enumerate(zip(rollout.prompts, rollout.responses, strict=True)):
        total = total - (experience.advantages[row, : len(response)].double()
                         * plain_logprobs(policy, prompt, response)).sum()
        values = value_model(torch.tensor([prompt + response]))[0, len(prompt) - 1 : -1]
        errors.append(values.double() - experience.returns[row, : len(response)].double())
    (total / count + OBJECTIVE.vf_coef * 0.5 * torch.cat(errors).square().sum() / count).backward()
    assert_close_gradients(found_policy, gradients(policy))
    assert_close_gradients(found_value, gradients(value_model))


def test_micro_batches_add_up_to_the_large_batch() -> None:
    policy, value_model = tiny_gpt(), tiny_scalar()
    rollout = tiny_rollout(tiny_gpt(4))  # another policy, so that ratios differ from 1 and some are clipped
    experience = experience_of(rollout, rollout_values(tiny_scalar(9), rollout, max_tokens=1000))
    count = experience.num_tokens
    whole = ppo_backward(policy, value_model, experience, OBJECTIVE, denominator=count)
    expected = gradients(policy, value_model)
    policy.zero_grad()
    value_model.zero_grad()
    parts = [
        ppo_backward(policy, value_model, select(experience, rows), OBJECTIVE, denominator=count)
        for rows in ([0], [1, 2], [3])
    ]
    assert_close_gradients(gradients(policy, value_model), expected)
    joined = sum_stats(parts)
    torch.testing.assert_close(joined.loss, whole.loss.detach(), rtol=1e-5, atol=1e-7)  # float32 sums reordered
    torch.testing.assert_close(joined.stats, whole.stats, rtol=1e-5, atol=1e-7)
    assert float(whole.clipfrac) > 0.0


def test_dividing_each_part_by_its_own_count_would_be_found() -> None:
    """The comparison above can fail: averages of averages are not the average."""
    policy, value_model = tiny_gpt(), tiny_scalar()
    rollout = tiny_rollout(policy)
    assert len({len(r) for r in rollout.responses}) > 1
    experience = experience_of(rollout, rollout_values(value_model, rollout, max_tokens=1000))
    ppo_backward(policy, value_model, experience, OBJECTIVE, denominator=experience.num_tokens)
    expected = gradients(policy)
    policy.zero_grad()
    for rows in ([0], [1, 2], [3]):
        part = select(experience, rows)
        ppo_backward(policy, value_model, part, OBJECTIVE, denominator=part.num_tokens * 3)
    assert any((a - b).abs().max() > 1e-2 * b.abs().max() for a, b in zip(gradients(policy), expected, strict=True))


def test_what_stands_behind_the_mask_has_no_effect() -> None:
    policy, value_model = tiny_gpt(), tiny_scalar()
    rollout = tiny_rollout(policy)
    assert not rollout.loss_mask.all()
    experience = experience_of(rollout, rollout_values(value_model, rollout, max_tokens=1000))
    ppo_backward(policy, value_model, experience, OBJECTIVE, denominator=10.0)
    expected = gradients(policy, value_model)
    policy.zero_grad()
    value_model.zero_grad()
    poison = {
        name: getattr(experience, name).masked_fill(~experience.loss_mask, float("nan"))
        for name in ("old_logprobs", "ref_logprobs", "old_values", "advantages", "returns")
    }
    ppo_backward(policy, value_model, dataclasses.replace(experience, **poison), OBJECTIVE, denominator=10.0)
    for a, b in zip(gradients(policy, value_model), expected, strict=True):
        assert torch.equal(a, b)


def test_an_entropy_bonus_pushes_entropy_up() -> None:
    policy, value_model = tiny_gpt(), tiny_scalar()
    rollout = tiny_rollout(policy)
    experience = dataclasses.replace(
        experience_of(rollout, rollout_values(value_model, rollout, max_tokens=1000)),
        advantages=torch.zeros_like(rollout.logprobs),
    )
    bonus = dataclasses.replace(OBJECTIVE, entropy_coef=1.0)
    before = ppo_backward(policy, value_model, experience, bonus, denominator=experience.num_tokens).entropy
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    after = ppo_backward(policy, value_model, experience, bonus, denominator=experience.num_tokens).entropy
    assert float(after) > float(before)


def test_selected_rows_keep_their_tensors() -> None:
    rollout = tiny_rollout(tiny_gpt())
    experience = experience_of(rollout, torch.zeros_like(rollout.logprobs))
    some = select(experience, [3, 1])
    assert some.responses == [rollout.responses[3], rollout.responses[1]]
    for name in ("old_logprobs", "advantages", "returns"):
        taken, whole = getattr(some, name), getattr(experience, name)
        assert torch.equal(pad(taken[some.loss_mask], some.loss_mask), taken)
        assert torch.equal(taken[0][some.loss_mask[0]], whole[3][rollout.loss_mask[3]])
