"""Rollouts: the live policy answers prompts, and the answers are kept with the log-probabilities they were drawn at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructgpt_fast.generate import Engine, SamplingConfig, default_seeds, sample
from instructgpt_fast.model import GPT, PAGE_SIZE
from instructgpt_fast.rlhf.batch import pack, pad, padded_mask

__all__ = ["Rollout", "collect", "episode_seeds", "rollout_engine"]


@dataclass(frozen=True)
class Rollout:
    """B prompts and the responses a policy gave to them.

    prompts, responses: B lists of token ids; a response ends with EOS when the policy drew it.
    finished: bool [B], True where it did. loss_mask: bool [B, R], True on response tokens, right-padded.
    logprobs: f32 [B, R], nats, as the sampler recorded them; 0 at uncounted positions.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    finished: Tensor
    loss_mask: Tensor
    logprobs: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def device(self) -> torch.device:
        return self.loss_mask.device

    @property
    def sequence_lengths(self) -> list[int]:
        """Tokens of each prompt with its response."""
        return [len(p) + len(r) for p, r in zip(self.prompts, self.responses, strict=True)]

    def take(self, rows: Sequence[int]) -> Rollout:
        """The named rows in the given order, cut to the longest response among them."""
        responses = [self.responses[i] for i in rows]
        index = torch.tensor(list(rows), device=self.device)
        width = max(map(len, responses))
        return Rollout(
            [self.prompts[i] for i in rows], responses, self.finished[index],
            self.loss_mask[index, :width], self.logprobs[index, :width],
        )

    def tensors(self) -> dict[str, Tensor]:
        """What to keep of this rollout when something in it is not finite."""
        batch = pack(self.prompts, self.responses)
        return {
            "tokens": batch.tokens, "cu_seqlens": batch.cu_seqlens, "loss_mask": batch.loss_mask,
            "sampler_logprobs": self.logprobs,
        }

    def pad(self, flat: Tensor) -> Tensor:
        """Lay out one number a response token, in packed order, as f32 [B, R]."""
        return pad(flat, self.loss_mask)


def episode_seeds(seed: int, first_episode: int, count: int) -> list[int]:
    """One sampling seed for each episode, a function of the run's seed and the episode's number alone.

    So an episode draws the same response whatever the batch size, and a resumed run repeats none.
    Returns `count` integers in [0, 2^63).
    """
    return default_seeds(seed, count, first_episode)


def rollout_engine(policy: GPT, *, eos_id: int, batch_size: int, most_tokens: int) -> Engine:
    """Make an engine for all rollouts of a run: it samples from the live weights and keeps its memory in between.

    batch_size: responses decoded at the same time. most_tokens: of a prompt with its response; the memory is for
    batch_size of these.
    """
    each = -(-most_tokens // PAGE_SIZE) * PAGE_SIZE
    return Engine(policy, eos_id=eos_id, max_rows=batch_size, cache_tokens=batch_size * each)


def collect(
    policy: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    eos_id: int,
    seeds: Sequence[int],
    batch_size: int,
    engine: Engine | None = None,
) -> Rollout:
    """Let the policy answer each prompt once, dropout off and without gradient.

    prompts: B token lists, none empty. seeds: B sampling seeds. batch_size: responses decoded at the same time.
    engine: from `rollout_engine` for this policy, so that its memory is used again; it decodes as many at a time as it
    was made for. Without one, another is made for this call.
    Raises TrainingError when the logits are not numbers, which means that the policy has broken.
    """
    if engine is not None:
        engine.weights_changed()
    training = policy.training
    policy.eval()
    try:
        with torch.no_grad():
            drawn = sample(
                policy, [list(p) for p in prompts], sampling, eos_id=eos_id, seeds=list(seeds), batch_size=batch_size,
                engine=engine,
            )
    finally:
        policy.train(training)
    device = policy.lm_weight.device
    responses = [list(completion.tokens) for completion in drawn]
    mask = padded_mask([len(r) for r in responses], device)
    flat = torch.tensor([x for completion in drawn for x in completion.logprobs], dtype=torch.float32, device=device)
    finished = torch.tensor([completion.finished for completion in drawn], dtype=torch.bool, device=device)
    return Rollout([list(p) for p in prompts], responses, finished, mask, pad(flat, mask))
