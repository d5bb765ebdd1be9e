"""What a PPO run records beside its metrics: answers to fixed prompts, token by token, and the arithmetic it needs.

No random state is touched: an answer's draws are a function of its seed alone, so a run is the same with samples and
without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from instructgpt_fast.rlhf.ptx import ptx_examples
from instructgpt_fast.rlhf.rollout import Rollout, episode_seeds
from instructgpt_fast.train.flops import TRAINING, forward_flops
from instructgpt_fast.train.loop import Run
from instructgpt_fast.train.ppo_rollout import answer, weigh
from instructgpt_fast.train.records import Sample
from instructgpt_fast.train.samples import pieces_of, rounded

if TYPE_CHECKING:
    from instructgpt_fast.train.ppo import PpoConfig
    from instructgpt_fast.train.ppo_parts import PpoParts

__all__ = ["iteration_flops", "record_answers"]

# Samples draw as episodes that no run reaches, so that they repeat no draw of training.
FIRST_EPISODE = 2**40


def record_answers(config: PpoConfig, parts: PpoParts, run: Run, step: int) -> None:
    """Answer the first record_samples prompts of the file with the live policy, and append them to samples.jsonl.

    Training goes on as it would without: a failure is told, and random states are put back.
    They are weighed as a rollout is; with whiten_scores or whiten_rewards the batch that whitens is these samples.
    Nothing happens where samples of this step are kept already.
    """
    prompts = parts.prompts.tokens[:config.record_samples]
    if not prompts or step in run.samples.steps:
        return
    # A scorer of one's own may draw random numbers, and may fail here as anywhere.
    with run.aside(f"the samples of step {step}"):
        run.samples.write(_judged(config, parts, run, step, prompts))


def _judged(config: PpoConfig, parts: PpoParts, run: Run, step: int, prompts: Sequence[list[int]]) -> list[Sample]:
    tokenizer = parts.training.tokenizer
    seeds = episode_seeds(config.seed, FIRST_EPISODE, len(prompts))
    rollout = answer(config, parts, prompts, seeds, step, run.directory)
    weighed = weigh(config, parts, rollout, step, run.directory)
    experience = weighed.experience
    samples = []
    for row, response in enumerate(rollout.responses):
        length = len(response)
        samples.append(Sample(
            step=step, prompt=tokenizer.decode(prompts[row], skip_special_tokens=True), seed=seeds[row],
            tokens=pieces_of(tokenizer, response), token_ids=response,
            logprobs=rounded(experience.old_logprobs[row, :length]), finished=bool(rollout.finished[row]),
            kl=rounded(weighed.kl[row, :length]), advantages=rounded(experience.advantages[row, :length]),
            values=rounded(experience.old_values[row, :length]), score=rounded(weighed.scores[row:row + 1])[0],
        ))
    return samples


def iteration_flops(config: PpoConfig, parts: PpoParts, rollout: Rollout) -> float:
    """FLOPs that one iteration's method needs.

    Policy: answers (each token read once) and num_ppo_epochs updates; reference: one forward; value model: one forward
    and the updates; reward model: one forward; pretraining windows: forward and backward.
    """
    lengths = rollout.sequence_lengths
    outputs = sum(map(len, rollout.responses))
    policy = forward_flops(parts.policy.config, lengths, outputs)
    value = forward_flops(parts.value_model.config, lengths, 0)
    passes = 1 + TRAINING * config.num_ppo_epochs
    total = (passes + 1) * policy + passes * value
    if parts.reward_model is not None:
        total += forward_flops(parts.reward_model.config, lengths, 0)
    if parts.ptx is not None:
        length = parts.ptx.windows.length
        minibatches = config.batch_size // config.mini_batch_size * config.num_ppo_epochs
        windows = ptx_examples(config.mini_batch_size, config.ptx_ratio) * minibatches
        total += TRAINING * windows * forward_flops(parts.policy.config, [length], length - 1)
    return total
