"""What the models say about packed responses, against one sequence at a time with whole logits."""

from __future__ import annotations

import torch

from instructgpt_fast.rlhf.batch import pack
from instructgpt_fast.rlhf.scoring import (
    response_logprobs,
    response_values,
    rollout_logprobs,
    rollout_scores,
    rollout_values,
    sequence_scores,
)

from .tiny import PROMPTS, plain_logits, plain_logprobs, tiny_gpt, tiny_rollout, tiny_scalar

RESPONSES = [[30, 31], [32, 33, 34, 299], [35], [36, 37, 38]]
NATS = 2e-5  # float32 log-probabilities near 10: about 20 units in the last place after two layers


def test_logprobs_and_entropy_match_whole_logits() -> None:
    model = tiny_gpt()
    for temperature in (1.0, 0.7):
        logprobs, entropy = response_logprobs(model, pack(PROMPTS, RESPONSES), temperature=temperature)
        plain = torch.cat([plain_logprobs(model, p, r, temperature) for p, r in zip(PROMPTS, RESPONSES, strict=True)])
        torch.testing.assert_close(logprobs.double(), plain, rtol=0, atol=NATS)
        logits = torch.cat([plain_logits(model, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]) / temperature
        torch.testing.assert_close(
            entropy.double(), torch.distributions.Categorical(logits=logits).entropy(), rtol=0, atol=NATS
        )


def test_values_are_read_before_the_token_and_scores_at_the_last() -> None:
    model = tiny_scalar()
    values, scores = [], []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        alone = model(torch.tensor([prompt + response]))[0]
        values.append(alone[len(prompt) - 1 : -1])
        scores.append(alone[-1])
    batch = pack(PROMPTS, RESPONSES)
    # Packed and alone differ by the order of float32 sums only.
    torch.testing.assert_close(response_values(model, batch), torch.cat(values), rtol=0, atol=1e-5)
    torch.testing.assert_close(sequence_scores(model, batch), torch.stack(scores), rtol=0, atol=1e-5)


def test_a_rollout_is_scored_in_chunks_without_changing_anything() -> None:
    policy, other = tiny_gpt(), tiny_gpt(7)
    scalar = tiny_scalar()
    rollout = tiny_rollout(policy)
    whole = 10**6
    for small in (1, 20):
        torch.testing.assert_close(
            rollout_logprobs(other, rollout, temperature=1.0, max_tokens=small),
            rollout_logprobs(other, rollout, temperature=1.0, max_tokens=whole), rtol=0, atol=NATS,
        )
        torch.testing.assert_close(
            rollout_values(scalar, rollout, max_tokens=small), rollout_values(scalar, rollout, max_tokens=whole),
            rtol=0, atol=1e-5,
        )
        torch.testing.assert_close(
            rollout_scores(scalar, rollout, max_tokens=small), rollout_scores(scalar, rollout, max_tokens=whole),
            rtol=0, atol=1e-5,
        )
    assert not rollout_values(scalar, rollout, max_tokens=whole).requires_grad
    assert (rollout_values(scalar, rollout, max_tokens=whole)[~rollout.loss_mask] == 0).all()
