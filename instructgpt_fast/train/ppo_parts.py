"""What a PPO run is made of: its models, optimizers, prompts and pretraining windows, and the state that it resumes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from instructgpt_fast.checkpoint import Loaded, require_same_vocabulary
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.generate import Engine
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.optim import AdamW
from instructgpt_fast.rlhf.kl import adapt_kl_coef
from instructgpt_fast.rlhf.rollout import Rollout, rollout_engine
from instructgpt_fast.rlhf.scorers import RewardFunction, Scorer, function_scorer, reward_model_scorer
from instructgpt_fast.train.inputs import load_gpt, load_scalar, with_dropout
from instructgpt_fast.train.loop import Run, Training, check_space, training_bytes
from instructgpt_fast.train.loss_scale import LossScale
from instructgpt_fast.train.ppo_data import Prompts, PtxWindows, read_demonstrations, read_prompts, read_ptx

if TYPE_CHECKING:
    from instructgpt_fast.train.ppo import PpoConfig

__all__ = ["PpoParts", "build_parts"]


@dataclass
class PpoParts:
    """Models, data and counters of one run; `training` is the part of them that a checkpoint holds."""

    policy: GPT
    engine: Engine
    reference: GPT
    value_model: ScalarModel
    reward_model: ScalarModel | None
    score: Scorer
    prompts: Prompts
    ptx: PtxWindows | None
    demonstrations: Rollout | None
    policy_optimizer: AdamW
    value_optimizer: AdamW
    training: Training
    eos_id: int
    trust_sampler: bool
    kl_coef: float
    loss_scale: LossScale = field(default_factory=LossScale)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the policy's weights."""
        return self.policy.lm_weight.dtype

    @property
    def models(self) -> dict[str, nn.Module]:
        """Every model by name; the reward model only when there is one."""
        found: dict[str, nn.Module] = {
            "policy": self.policy, "reference": self.reference, "value model": self.value_model,
        }
        return found if self.reward_model is None else {**found, "reward model": self.reward_model}

    def learn_kl(self, config: PpoConfig, observed_kl: float) -> None:
        """Adapt kl_coef to the KL of the last rollout when there is a target."""
        if config.kl_target is not None:
            self.kl_coef = adapt_kl_coef(self.kl_coef, observed_kl, config.kl_target, gain=config.kl_gain)

    def remember(self, episodes: int, metrics: Mapping[str, float]) -> None:
        """Put every position and counter, and the last metrics, where the next checkpoint keeps it."""
        self.training.counters.update(
            episodes=episodes, metrics=dict(metrics), kl_coef=self.kl_coef, prompt_order=self.prompts.order.state(),
            ptx_order=None if self.ptx is None else self.ptx.order.state(), loss_scale=self.loss_scale.state(),
        )

    def restore(self) -> None:
        """Continue from the counters of a checkpoint; a fresh run has none and is left as it is."""
        counters = self.training.counters
        if not counters:
            return
        self.kl_coef = float(counters["kl_coef"])
        self.prompts.order.restore(counters["prompt_order"])
        if self.ptx is not None and counters["ptx_order"] is not None:
            self.ptx.order.restore(counters["ptx_order"])
        self.loss_scale.restore(counters["loss_scale"])


def build_parts(config: PpoConfig, run: Run, reward_fn: RewardFunction | None) -> PpoParts:
    """Load models and data, refusing what does not fit together before any work is done.

    Raises ConfigError, DataError or CheckpointError.
    """
    policy, loaded = load_gpt(run, config.policy)
    reward_model = _load_reward_model(config, run, loaded, reward_fn)
    value_model = _load_value_model(config, run, policy, loaded)
    reference = copy.deepcopy(policy)
    for model in (policy, reference, value_model, reward_model):
        if model is not None:
            _prepare(model, trained=model is policy or model is value_model, config=config)
    context = min(model.config.n_positions for model in (policy, value_model, reward_model) if model is not None)
    prompts = read_prompts(config, run, loaded, context)
    policy_optimizer = _optimizer(config, policy, config.ema_decay)
    value_optimizer = _optimizer(config, value_model, None)
    average = config.export_ema and config.ema_decay is not None
    training = Training(
        policy, loaded.tokenizer, loaded.prompt_format, {"policy": policy, "value": value_model},
        {"policy": policy_optimizer, "value": value_optimizer},
        averaged=policy_optimizer.ema_state_dict if average else None,
    )
    check_space(run.directory, training_bytes(training.modules))
    if reward_model is None:
        assert reward_fn is not None  # _load_reward_model refuses to have neither
        decode = functools.partial(loaded.tokenizer.decode, skip_special_tokens=True)
        score = function_scorer(reward_fn, decode)
    else:
        score = reward_model_scorer(reward_model, max_tokens=config.max_scoring_tokens)
    trust_sampler = config.old_logprobs == "sampler" or (config.old_logprobs == "auto" and config.dtype == "fp32")
    run.say(f"old log-probabilities: the {'sampler' if trust_sampler else 'trainer'}'s")
    engine = rollout_engine(
        policy, eos_id=loaded.tokenizer.eos_id, batch_size=min(config.rollout_batch_size, config.batch_size),
        most_tokens=prompts.longest + config.max_response_tokens,
    )
    return PpoParts(
        policy=policy, engine=engine, reference=reference, value_model=value_model, reward_model=reward_model,
        score=score, prompts=prompts, ptx=read_ptx(config, run, loaded),
        demonstrations=read_demonstrations(config, run, loaded, context),
        policy_optimizer=policy_optimizer, value_optimizer=value_optimizer, training=training,
        eos_id=loaded.tokenizer.eos_id, trust_sampler=trust_sampler, kl_coef=config.kl_coef,
        loss_scale=LossScale.of_dtype(config.dtype),
    )


def _load_reward_model(
    config: PpoConfig, run: Run, policy: Loaded, reward_fn: RewardFunction | None
) -> ScalarModel | None:
    if (config.reward_model is None) == (reward_fn is None):
        got = "neither" if reward_fn is None else "both"
        raise ConfigError(
            f"ppo: give exactly one of reward_model (a checkpoint) and reward_fn (a Python function), got {got}; "
            "rewards need one source."
        )
    if config.reward_model is None:
        return None
    return _load_scalar(run, policy, config.reward_model)


def _load_value_model(config: PpoConfig, run: Run, policy: GPT, loaded: Loaded) -> ScalarModel:
    path = config.value_model or config.reward_model
    if path is None:
        run.say("value model: the policy's trunk with a new head, as there is no reward model")
        return ScalarModel.from_gpt(copy.deepcopy(policy))
    return _load_scalar(run, loaded, path)


def _load_scalar(run: Run, policy: Loaded, path: str) -> ScalarModel:
    model, loaded = load_scalar(run, path)
    require_same_vocabulary(policy, loaded)
    if policy.prompt_format != loaded.prompt_format:
        raise CheckpointError(
            f"ppo: {policy.path} and {loaded.path} must share one prompt format, got {policy.prompt_format!r} and "
            f"{loaded.prompt_format!r}; train both in the same format."
        )
    model.trunk = with_dropout(model.trunk, 0.0)
    model.config = model.trunk.config
    return model


def _prepare(model: GPT | ScalarModel, *, trained: bool, config: PpoConfig) -> None:
    # RL uses no dropout. A model that is trained stays in training mode, which decides about activation checkpointing,
    # and so it was loaded without any dropout in it.
    trunk = model.trunk if isinstance(model, ScalarModel) else model
    trunk.activation_checkpointing = trained and config.gradient_checkpointing
    model.train(trained)
    model.requires_grad_(trained)


def _optimizer(config: PpoConfig, model: nn.Module, ema_decay: float | None) -> AdamW:
    return AdamW(
        model, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon, weight_decay=config.weight_decay,
        eps_placement=config.adam_eps_placement, max_grad_norm=config.max_grad_norm, ema_decay=ema_decay,
    )
