"""PPO and PPO-ptx: its options first, then its loop (Ouyang et al. 2022, arXiv:2203.02155, section 3.5, appendix C.4).

Defaults carry a mark: [P] printed in that paper, [A] printed by an ancestor (Ziegler et al. 2019, arXiv:1909.08593;
Stiennon et al. 2020, arXiv:2009.01325; their released code), [O] our own choice.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import ClassVar, Literal

import torch

from instructgpt_fast.config import options_class
from instructgpt_fast.ops import PpoLoss
from instructgpt_fast.optim import constant_with_warmup
from instructgpt_fast.rlhf.advantages import whiten_advantages
from instructgpt_fast.rlhf.batch import pack
from instructgpt_fast.rlhf.invariants import check_first_minibatch
from instructgpt_fast.rlhf.metrics import rollout_metrics, sum_stats, update_metrics
from instructgpt_fast.rlhf.ptx import ptx_backward, ptx_examples
from instructgpt_fast.rlhf.rollout import Rollout, episode_seeds
from instructgpt_fast.rlhf.scorers import RewardFunction
from instructgpt_fast.rlhf.update import Experience, PpoObjective, ppo_backward, select
from instructgpt_fast.train.guard import stop_unless_finite
from instructgpt_fast.train.loop import TrainResult, open_run
from instructgpt_fast.train.options import RunOptions
from instructgpt_fast.train.ppo_checks import check_before_training
from instructgpt_fast.train.ppo_parts import PpoParts, build_parts
from instructgpt_fast.train.ppo_rollout import answer, weigh
from instructgpt_fast.train.ppo_samples import iteration_flops, record_answers
from instructgpt_fast.train.presets import PPO_PRESETS

__all__ = ["PpoConfig", "run_ppo"]


@options_class(PPO_PRESETS)
class PpoConfig(RunOptions):
    """Options of PPO: models, prompts, sizes, reward, update, pretraining mix."""

    stage: ClassVar[str] = "ppo"

    logging_steps: int = 1
    """Write metrics every so many iterations."""
    save_steps: int = 20
    """Save a checkpoint every so many iterations, and always after the last one."""
    policy: str
    """Checkpoint of the supervised model: the policy starts as it, and it is the frozen reference."""
    prompts: str
    """jsonl of {"prompt"} (or {"messages"}) lines to answer."""
    reward_model: str | None = None
    """Checkpoint of the reward model, frozen; left out when a reward function is given through the API."""
    value_model: str | None = None
    """Checkpoint the value model starts from [P: the reward model]; without one, the policy with a new head."""
    on_bad_line: Literal["error", "skip"] = "error"
    """A malformed line of a jsonl file stops the run with its place, or is skipped and counted."""

    total_episodes: int = 256_000
    """Prompts answered over the run, rounded up to whole iterations [P]."""
    batch_size: int = 512
    """Episodes of one iteration: so many prompts are answered, then trained on [P]."""
    mini_batch_size: int = 64
    """Episodes of one optimizer step; divides batch_size [P]."""
    num_ppo_epochs: int = 1
    """Passes over an iteration's episodes [P]."""
    per_device_train_batch_size: int = 8
    """Episodes in one forward and backward pass; gradients are accumulated up to mini_batch_size."""
    rollout_batch_size: int = 64
    """Responses decoded at the same time; a response does not depend on it."""
    max_scoring_tokens: int = 16_384
    """Tokens in one forward of the frozen models."""
    max_prompt_tokens: int = 1024
    """Longest prompt; it also leaves room for the response in the context of every model [P]."""
    on_overlong: Literal["error", "skip"] = "error"
    """A longer prompt stops the run with its place, or is left out and counted [P: left out]."""
    max_response_tokens: int = 1024
    """Sampling stops here when EOS has not been drawn [P]."""
    temperature: float = 1.0
    """Sampling temperature, at which log-probabilities are taken too [P]."""

    kl_coef: float = 0.02
    """beta, the weight of the per-token KL penalty in the reward [P]."""
    kl_target: float | None = None
    """Adapt kl_coef until the KL of a response is so many nats (Ziegler et al. 2019); none keeps it fixed [P]."""
    kl_gain: float = 0.1
    """Step of that adaptation [A]."""
    missing_eos_penalty: float | None = 1.0
    """Subtracted from the score of a response that did not end with EOS [A]; none subtracts nothing."""
    score_clip: float | None = None
    """Bound on the absolute score [O]; none does not clip."""
    whiten_scores: bool = False
    """Give the scores of an iteration zero mean and unit variance [O]."""
    whiten_rewards: bool = False
    """Divide the per-token rewards of an iteration by their standard deviation [A]."""
    whiten_advantages: bool = True
    """Give the advantages of a minibatch zero mean and unit variance [A]."""
    gamma: float = 1.0
    """Discount [P: none]."""
    lam: float = 0.95
    """Decay of generalised advantage estimation [A]."""

    cliprange: float = 0.2
    """Clip the probability ratio to 1 - cliprange .. 1 + cliprange [P]."""
    cliprange_value: float = 0.2
    """Clip the change of a value [A]."""
    vf_coef: float = 0.1
    """Weight of the value loss; the value model has its own optimizer, so it matters only beside max_grad_norm [A]."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus [A: none]."""
    old_logprobs: Literal["auto", "sampler", "trainer"] = "auto"
    """The denominator of the ratio: as the sampler recorded it, or one more forward of the trainer; auto takes the
    sampler's in fp32, where the check before the first update shows both equal, else the trainer's."""

    learning_rate: float = 8e-6
    """Peak learning rate of the policy; the paper does not print it [O]."""
    value_learning_rate: float = 9e-6
    """Peak learning rate of the value model [P]."""
    lr_warmup_iterations: int = 10
    """Iterations of linear warm-up; constant afterwards [P]."""
    lr_warmup_start: float = 0.1
    """Fraction of the peak at which the warm-up begins [P]."""
    max_grad_norm: float | None = 1.0
    """Clip the gradient's L2 norm, of policy and value model separately [O]; none does not clip."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices [O]."""
    adam_beta1: float = 0.9
    """Adam's decay of the first moment [P]."""
    adam_beta2: float = 0.95
    """Adam's decay of the second moment [P]."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon [O]."""
    adam_eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Epsilon after the bias correction (torch) or before it (tensorflow, as in OpenAI's released code) [O]."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block and compute the rest again in the backward pass."""
    ema_decay: float | None = 0.992
    """Decay per optimizer step of the running average of the policy's weights [P]; none keeps no average."""
    export_ema: bool = True
    """A checkpoint's model is the average; otherwise the last weights. Both are stored for resuming."""

    ptx_data: str | None = None
    """Pretraining text (token shards, text or jsonl) mixed in: PPO-ptx; none is plain PPO."""
    ptx_coef: float = 27.8
    """Weight of the pretraining gradient, whose loss is a mean over tokens here [P; the average is O]."""
    ptx_ratio: float = 8.0
    """Pretraining windows for each episode [P]."""
    per_device_ptx_batch_size: int = 8
    """Pretraining windows in one forward and backward pass."""
    ptx_length: int | None = None
    """Tokens of a pretraining window; none is the policy's context [O]."""

    check_invariants: bool = True
    """Before the first update check what must hold at step 0, and stop with the likely cause when it does not."""
    demonstrations: str | None = None
    """jsonl of demonstrations on which those checks find the reward model's mean score, which should be 0."""
    invariant_episodes: int = 4
    """Responses that those checks score alone, packed and padded."""
    reward_bias_tolerance: float = 0.1
    """How far from 0, beyond sampling error, the mean score of the demonstrations may lie [O]."""

    def check(self) -> None:
        """Refuse sizes that do not divide, and constants outside their range."""
        super().check()
        for name in (
            "total_episodes", "batch_size", "mini_batch_size", "num_ppo_epochs", "per_device_train_batch_size",
            "rollout_batch_size", "max_scoring_tokens", "max_prompt_tokens", "max_response_tokens",
            "invariant_episodes", "per_device_ptx_batch_size",
        ):
            value = getattr(self, name)
            self.require(f"{name} must be at least 1", value >= 1, **{name: value})
        self.require(
            "mini_batch_size must divide batch_size", self.batch_size % self.mini_batch_size == 0,
            batch_size=self.batch_size, mini_batch_size=self.mini_batch_size,
        )
        self._check_positive()
        for name in ("gamma", "lam", "lr_warmup_start"):
            value = getattr(self, name)
            self.require(f"{name} must lie in [0, 1]", 0.0 <= value <= 1.0, **{name: value})
        for name in ("adam_beta1", "adam_beta2"):
            value = getattr(self, name)
            self.require(f"{name} must lie in [0, 1)", 0.0 <= value < 1.0, **{name: value})
        decay = self.ema_decay
        self.require("ema_decay must lie in (0, 1) or be none", decay is None or 0.0 < decay < 1.0, ema_decay=decay)

    def _check_positive(self) -> None:
        for name in (
            "temperature", "learning_rate", "value_learning_rate", "adam_epsilon", "cliprange", "cliprange_value",
            "max_grad_norm", "kl_target", "score_clip", "ptx_coef", "ptx_ratio",
        ):
            value = getattr(self, name)
            self.require(f"{name} must be above 0", value is None or value > 0.0, **{name: value})
        for name in (
            "kl_coef", "kl_gain", "vf_coef", "entropy_coef", "missing_eos_penalty", "weight_decay",
            "lr_warmup_iterations", "reward_bias_tolerance",
        ):
            value = getattr(self, name)
            self.require(f"{name} must be at least 0", value is None or value >= 0, **{name: value})
        length = self.ptx_length
        self.require("ptx_length must be at least 2 or none", length is None or length >= 2, ptx_length=length)

    @property
    def iterations(self) -> int:
        """Rollout-and-update rounds: total_episodes / batch_size, rounded up."""
        return -(-self.total_episodes // self.batch_size)


def run_ppo(config: PpoConfig, *, reward_fn: RewardFunction | None = None) -> TrainResult:
    """Train a policy by PPO against a reward model, or by PPO-ptx when ptx_data is given.

    reward_fn: scores (prompts, responses) as text instead of the reward model; a Python function, higher is better.
    Every random choice is a function of the seed and of the episode or iteration, so a resumed run makes the same ones.
    Raises ConfigError, DataError, CheckpointError, BackendError or TrainingError, each saying what to do.
    """
    with open_run("ppo", config) as run:
        parts = build_parts(config, run, reward_fn)
        first = run.resume(parts.training)
        parts.restore()
        if first and run.due(config.save_steps, first, config.iterations):
            # A run that was killed between its checkpoint and its samples draws them now, from equal weights.
            record_answers(config, parts, run, first)
        metrics: dict[str, float] = parts.training.counters.get("metrics", {})
        for iteration in run.steps(first, config.iterations):
            rollout, experience, metrics = gather(config, parts, iteration, run.directory)
            if iteration == 1 and config.check_invariants:
                check_before_training(config, parts, rollout, experience)
            if iteration == 1:
                record_answers(config, parts, run, 0)
            metrics |= update(config, parts, experience, iteration, run.directory)
            parts.learn_kl(config, metrics["objective/kl"])
            parts.remember(iteration * config.batch_size, metrics)
            run.worked(sum(rollout.sequence_lengths), iteration_flops(config, parts, rollout))
            run.log(iteration, metrics, config.iterations)
            run.save_if_due(iteration, config.iterations, parts.training)
            if run.due(config.save_steps, iteration, config.iterations):
                record_answers(config, parts, run, iteration)
        return run.finish(config.iterations, parts.training, metrics)


def gather(
    config: PpoConfig, parts: PpoParts, iteration: int, run_dir: Path
) -> tuple[Rollout, Experience, dict[str, float]]:
    """Answer batch_size prompts with the live policy, and work out their rewards, advantages and returns."""
    started = time.perf_counter()
    prompts = parts.prompts.take(config.batch_size)
    seeds = episode_seeds(config.seed, (iteration - 1) * config.batch_size, config.batch_size)
    rollout = answer(config, parts, prompts, seeds, iteration, run_dir)
    drawn = time.perf_counter()
    weighed = weigh(config, parts, rollout, iteration, run_dir)
    metrics = rollout_metrics(
        rollout, weighed.kl, weighed.penalised, weighed.shaped, weighed.experience, kl_coef=parts.kl_coef,
        raw_scores=weighed.scores,
    )
    metrics |= {"time/rollout": drawn - started, "time/score": time.perf_counter() - drawn}
    return rollout, weighed.experience, metrics


def update(
    config: PpoConfig, parts: PpoParts, experience: Experience, iteration: int, run_dir: Path
) -> dict[str, float]:
    """Train policy and value model on one iteration's experience; returns its metrics."""
    started = time.perf_counter()
    warmup = constant_with_warmup(iteration - 1, 1.0, config.lr_warmup_iterations, config.lr_warmup_start)
    # The order of episodes within an iteration depends on seed and iteration alone, so resuming needs no state for it.
    generator = torch.Generator().manual_seed(episode_seeds(config.seed, -iteration, 1)[0])
    results: list[PpoLoss] = []
    norms: list[dict[str, float]] = []
    ptx_losses: list[float] = []
    for _ in range(config.num_ppo_epochs):
        for rows in torch.randperm(len(experience), generator=generator).split(config.mini_batch_size):
            minibatch = select(experience, rows.tolist())
            result, ptx_loss = accumulate(config, parts, minibatch)
            if iteration == 1 and not results and config.check_invariants:
                check_first_minibatch(result, parts.dtype)
            norms.append(step(config, parts, minibatch, result, ptx_loss, warmup, iteration, run_dir))
            results.append(result)
            if ptx_loss is not None:
                ptx_losses.append(ptx_loss)
    metrics = update_metrics(results)
    metrics |= {name: sum(norm[name] for norm in norms) / len(norms) for name in norms[0]}
    metrics |= {"lr": warmup * config.learning_rate, "value_lr": warmup * config.value_learning_rate}
    if parts.loss_scale.dynamic:
        metrics["loss_scale"] = parts.loss_scale.scale
    if ptx_losses:
        metrics["loss/ptx"] = sum(ptx_losses) / len(ptx_losses)
    return metrics | {"time/update": time.perf_counter() - started, "episode": float(iteration * config.batch_size)}


def accumulate(config: PpoConfig, parts: PpoParts, minibatch: Experience) -> tuple[PpoLoss, float | None]:
    """Gradients of one minibatch, in micro batches, then of its share of pretraining text into the same buffers."""
    if config.whiten_advantages:
        white = whiten_advantages(minibatch.advantages, minibatch.loss_mask)
        minibatch = dataclasses.replace(minibatch, advantages=white)
    objective = PpoObjective(
        cliprange=config.cliprange, cliprange_value=config.cliprange_value, vf_coef=config.vf_coef,
        temperature=config.temperature, entropy_coef=config.entropy_coef,
    )
    size = config.per_device_train_batch_size
    results = [
        ppo_backward(
            parts.policy, parts.value_model, select(minibatch, range(first, min(first + size, len(minibatch)))),
            objective, denominator=minibatch.num_tokens, loss_scale=parts.loss_scale.scale,
        )
        for first in range(0, len(minibatch), size)
    ]
    ptx_loss = None
    if parts.ptx is not None:
        windows = parts.ptx.take(ptx_examples(len(minibatch), config.ptx_ratio))
        ptx_loss = ptx_backward(
            parts.policy, windows, ptx_coef=config.ptx_coef, micro_batch_size=config.per_device_ptx_batch_size,
            loss_scale=parts.loss_scale.scale,
        )
    return sum_stats(results), ptx_loss


def step(
    config: PpoConfig,
    parts: PpoParts,
    minibatch: Experience,
    result: PpoLoss,
    ptx_loss: float | None,
    warmup: float,
    iteration: int,
    run_dir: Path,
) -> dict[str, float]:
    """One optimizer step of policy and value model; a loss or gradient that is not finite stops the run instead.

    Returns the L2 norms of both gradients before clipping.
    """
    batch = pack(minibatch.prompts, minibatch.responses, minibatch.loss_mask.device)

    def check(values: dict[str, float]) -> None:
        stop_unless_finite(
            run_dir, iteration, values, modules={"policy": parts.policy, "value": parts.value_model},
            batch=minibatch.tensors(),
            replay=lambda: (parts.policy(batch.tokens, cu_seqlens=batch.cu_seqlens),
                            parts.value_model(batch.tokens, cu_seqlens=batch.cu_seqlens)),
        )

    check({"loss": result.loss.item(), "ptx loss": 0.0 if ptx_loss is None else ptx_loss})
    unscale = 1.0 / parts.loss_scale.scale
    reports = {
        "policy/grad_norm": parts.policy_optimizer.step(config.learning_rate * warmup, grad_scale=unscale),
        "value/grad_norm": parts.value_optimizer.step(config.value_learning_rate * warmup, grad_scale=unscale),
    }
    norms = {name: report.grad_norm for name, report in reports.items()}
    if not parts.loss_scale.dynamic:
        check(norms)
    parts.loss_scale.update(all(report.applied for report in reports.values()))
    parts.policy_optimizer.zero_grad()
    parts.value_optimizer.zero_grad()
    return norms
