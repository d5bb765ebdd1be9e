"""PPO and PPO-ptx: its options first, then its loop (Ouyang et al. 2022, arXiv:2203.02155, section 3.5, appendix C.4).

Defaults carry a mark: [P] printed in that paper, [A] printed by an ancestor (Ziegler et al. 2019, arXiv:1909.08593;
Stiennon et al. 2020, arXiv:2009.01325; their released code), [O] our own choice.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from instructgpt_fast.config import options_class
from instructgpt_fast.train.options import RunOptions
from instructgpt_fast.train.presets import PPO_PRESETS

__all__ = ["PpoConfig"]


@options_class(PPO_PRESETS)
class PpoConfig(RunOptions):
    """Options of PPO: models, prompts, sizes, reward, update, pretraining mix."""

    stage: ClassVar[str] = "ppo"

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
    """Longer prompts are left out and counted [P]."""
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
            "invariant_episodes",
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
        for name in ("adam_beta1", "adam_beta2", "ema_decay"):
            value = getattr(self, name)
            self.require(f"{name} must lie in [0, 1)", value is None or 0.0 <= value < 1.0, **{name: value})

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
