"""Rollouts: what is recorded, and that an episode is a function of its seed alone."""

from __future__ import annotations

import math

import pytest
import torch

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.rlhf.rollout import collect, episode_seeds, rollout_engine

from .tiny import EOS, PROMPTS, plain_logprobs, tiny_gpt, tiny_rollout


def test_seeds_belong_to_episodes() -> None:
    whole = episode_seeds(7, 0, 100)
    assert len(set(whole)) == 100
    assert episode_seeds(7, 40, 10) == whole[40:50]
    assert not set(whole) & set(episode_seeds(8, 0, 100))
    assert all(0 <= seed < 2**63 for seed in episode_seeds(2**40, 0, 4))


def test_a_rollout_records_what_was_drawn() -> None:
    policy = tiny_gpt()
    rollout = tiny_rollout(policy, max_new_tokens=12)
    assert rollout.prompts == PROMPTS
    assert rollout.loss_mask.sum(1).tolist() == [len(r) for r in rollout.responses]
    assert all(1 <= len(r) <= 12 for r in rollout.responses)
    for response, finished in zip(rollout.responses, rollout.finished.tolist(), strict=True):
        assert finished == (response[-1] == EOS)
    plain = torch.cat([plain_logprobs(policy, p, r) for p, r in zip(PROMPTS, rollout.responses, strict=True)])
    # float32 decoding over a cache against float64 logits of the full forward.
    torch.testing.assert_close(rollout.logprobs[rollout.loss_mask].double(), plain.detach(), rtol=0, atol=2e-5)
    assert (rollout.logprobs[~rollout.loss_mask] == 0).all()


def test_an_episode_does_not_depend_on_its_batch() -> None:
    policy = tiny_gpt()
    sampling = SamplingConfig(max_new_tokens=12)
    seeds = episode_seeds(3, 0, len(PROMPTS))
    together = collect(policy, PROMPTS, sampling, eos_id=EOS, seeds=seeds, batch_size=8)
    alone = collect(policy, PROMPTS[2:3], sampling, eos_id=EOS, seeds=seeds[2:3], batch_size=1)
    assert alone.responses[0] == together.responses[2]
    assert torch.equal(alone.logprobs[0], together.logprobs[2, : alone.logprobs.shape[1]])


def test_an_engine_serves_rollout_after_rollout_with_the_weights_of_the_moment() -> None:
    policy, other = tiny_gpt(), tiny_gpt(seed=5)
    engine = rollout_engine(policy, eos_id=EOS, batch_size=3, most_tokens=17)
    sampling = SamplingConfig(max_new_tokens=12)
    seeds = episode_seeds(3, 0, len(PROMPTS))
    found = []
    for weights in (policy.state_dict(), other.state_dict()):
        weights = {name: tensor.clone() for name, tensor in weights.items()}
        policy.load_state_dict(weights)
        kept = collect(policy, PROMPTS, sampling, eos_id=EOS, seeds=seeds, batch_size=3, engine=engine)
        fresh = collect(policy, PROMPTS, sampling, eos_id=EOS, seeds=seeds, batch_size=3)
        assert kept.responses == fresh.responses
        assert torch.equal(kept.logprobs, fresh.logprobs)
        found.append(kept.responses)
    assert found[0] != found[1]


def test_dropout_is_off_while_sampling_and_mode_is_kept() -> None:
    policy = tiny_gpt(residual_dropout=0.5).train()
    rollout = tiny_rollout(policy)
    assert policy.training
    assert rollout.responses == tiny_rollout(tiny_gpt()).responses


def test_rows_are_taken_and_cut() -> None:
    rollout = tiny_rollout(tiny_gpt())
    some = rollout.take([2, 0])
    assert some.prompts == [PROMPTS[2], PROMPTS[0]]
    assert some.responses == [rollout.responses[2], rollout.responses[0]]
    assert some.loss_mask.shape[1] == max(len(r) for r in some.responses)
    assert torch.equal(some.logprobs[some.loss_mask], torch.cat([
        rollout.logprobs[2][rollout.loss_mask[2]], rollout.logprobs[0][rollout.loss_mask[0]]
    ]))


def test_a_broken_policy_stops_the_run() -> None:
    policy = tiny_gpt()
    with torch.no_grad():
        policy.ln_f.bias.fill_(math.nan)
    with pytest.raises(TrainingError, match="logits must be numbers"):
        tiny_rollout(policy)
