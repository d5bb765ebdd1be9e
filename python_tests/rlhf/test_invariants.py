"""Every invariant is sabotaged once and must say what is wrong; unharmed runs must pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.model import GPT
from instructgpt_fast.ops import PpoLoss
from instructgpt_fast.rlhf.invariants import (
    check_eos_counted,
    check_first_minibatch,
    check_neighbours,
    check_reference,
    check_repeatable,
    check_reward_bias,
    check_sampler,
)
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import rollout_logprobs

from .tiny import EOS, tiny_gpt, tiny_rollout

F32 = torch.float32


@pytest.fixture(scope="module")
def policy() -> GPT:
    return tiny_gpt()


@pytest.fixture(scope="module")
def rollout(policy: GPT) -> Rollout:
    return tiny_rollout(policy)


def logprobs(model: GPT, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    return rollout_logprobs(model, rollout, temperature=temperature, max_tokens=1000)


def test_a_sound_run_passes(policy: GPT, rollout: Rollout) -> None:
    trainer = logprobs(policy, rollout)
    check_repeatable("policy", lambda: logprobs(policy, rollout))
    check_eos_counted(rollout, EOS)
    check_neighbours(policy, rollout, temperature=1.0)
    check_sampler(rollout, trainer, F32)
    check_reference(rollout.logprobs, logprobs(tiny_gpt(), rollout), rollout.loss_mask, F32)
    check_reward_bias(0.05, 0.01, 0.1)


def test_dropout_left_on(rollout: Rollout) -> None:
    noisy = tiny_gpt(residual_dropout=0.2).train()
    with pytest.raises(TrainingError, match="dropout is left on in the policy"):
        check_repeatable("policy", lambda: logprobs(noisy, rollout))


def test_wrong_temperature(policy: GPT, rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match="sampler's temperature"):
        check_sampler(rollout, logprobs(policy, rollout, temperature=0.7), F32)


def test_sampler_at_another_temperature(policy: GPT) -> None:
    cold = tiny_rollout(policy, temperature=0.5)
    check_sampler(cold, logprobs(policy, cold, temperature=0.5), F32)
    with pytest.raises(TrainingError, match="sampler against trainer"):
        check_sampler(cold, logprobs(policy, cold, temperature=1.0), F32)


def test_eos_masked_out(rollout: Rollout) -> None:
    counted = torch.ones(1, 3, dtype=torch.bool)
    ended = Rollout([[1, 2]], [[3, 4, EOS]], torch.tensor([True]), counted, torch.zeros(1, 3))
    check_eos_counted(ended, EOS)
    mask = ended.loss_mask.clone()
    mask[0, 2] = False
    with pytest.raises(TrainingError, match="EOS is masked out, or EOS and PAD share an id"):
        check_eos_counted(dataclasses.replace(ended, loss_mask=mask), EOS)
    with pytest.raises(TrainingError, match="not the id the sampler stops at"):
        check_eos_counted(ended, EOS - 1)
    with pytest.raises(TrainingError, match="not the id the sampler stops at"):
        check_eos_counted(dataclasses.replace(ended, finished=torch.tensor([False])), EOS)


def test_padding_that_is_counted() -> None:
    mask = torch.ones(1, 5, dtype=torch.bool)
    padded = Rollout([[1, 2]], [[3, 4, EOS]], torch.tensor([True]), mask, torch.zeros(1, 5))
    with pytest.raises(TrainingError, match="all 3 tokens of response 0 must be counted, and no more, got 5"):
        check_eos_counted(padded, EOS)


class OneSequence(GPT):
    """A policy whose attention and positions run across the sequences of a packed batch."""

    def forward(self, tokens, *, cu_seqlens=None, position_ids=None):  # type: ignore[no-untyped-def]
        if cu_seqlens is not None:
            cu_seqlens = torch.tensor([0, len(tokens)], dtype=torch.int32)
        return super().forward(tokens, cu_seqlens=cu_seqlens, position_ids=position_ids)


class RightAlignedPositions(GPT):
    """A policy that counts positions from the end of the padded row."""

    def forward(self, tokens, *, cu_seqlens=None, position_ids=None):  # type: ignore[no-untyped-def]
        if cu_seqlens is None:
            position_ids = (torch.arange(tokens.shape[1]).flip(0)).expand(tokens.shape)
        return super().forward(tokens, cu_seqlens=cu_seqlens, position_ids=position_ids)


def in_class(kind: type[GPT]) -> GPT:
    model = tiny_gpt()
    other = kind(model.config)
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_dependence_on_neighbours(rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match="attention crosses cu_seqlens"):
        check_neighbours(in_class(OneSequence), rollout, temperature=1.0)


def test_dependence_on_padding(rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match="position ids count padding"):
        check_neighbours(in_class(RightAlignedPositions), rollout, temperature=1.0)


def test_reference_is_another_model(rollout: Rollout) -> None:
    with pytest.raises(TrainingError, match="different checkpoints"):
        check_reference(rollout.logprobs, logprobs(tiny_gpt(7), rollout), rollout.loss_mask, F32)


def test_nan_is_never_close_enough(rollout: Rollout) -> None:
    broken = torch.full_like(rollout.logprobs, float("nan"))
    with pytest.raises(TrainingError):
        check_reference(rollout.logprobs, broken, rollout.loss_mask, F32)
    with pytest.raises(TrainingError):
        check_sampler(rollout, broken, F32)


def result(ratio: float, approx_kl: float) -> PpoLoss:
    stats = torch.zeros(8)
    stats[5], stats[6] = approx_kl, ratio
    return PpoLoss(torch.zeros(()), stats)


def test_policy_changed_before_the_first_update() -> None:
    check_first_minibatch(result(1.0 + 1e-6, 1e-12), F32)
    with pytest.raises(TrainingError, match="the policy changed between rollout and update"):
        check_first_minibatch(result(1.01, 1e-12), F32)
    with pytest.raises(TrainingError, match="ratio is 1 on the first minibatch"):
        check_first_minibatch(result(1.0, 1e-4), F32)
    with pytest.raises(TrainingError):
        check_first_minibatch(result(float("nan"), float("nan")), F32)


def test_reward_bias_not_normalised() -> None:
    with pytest.raises(TrainingError, match="bias was not normalised"):
        check_reward_bias(-0.8, 0.05, 0.1)
    check_reward_bias(-0.2, 0.05, 0.1)  # within three standard errors and the tolerance
    with pytest.raises(TrainingError):
        check_reward_bias(float("nan"), 0.05, 0.1)


def test_the_way_around_is_named() -> None:
    with pytest.raises(TrainingError, match="check_invariants=False"):
        check_reward_bias(5.0, 0.0, 0.1)
