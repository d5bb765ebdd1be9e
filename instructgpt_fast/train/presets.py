"""The papers' numbers as presets of the stages, each with its mark (P printed, A of an ancestor, O ours).

Sources: Ouyang et al. 2022, arXiv:2203.02155, appendix C; Brown et al. 2020, arXiv:2005.14165, table 2.1, appendix B.
"""

from __future__ import annotations

from instructgpt_fast.config import Marks, ancestral, ours, printed

BILLION = 1_000_000_000

# Ouyang et al. 2022, appendix C, "All models use the GPT-3 architecture ... fp16 ... beta1 = 0.9, beta2 = 0.95".
_ALL_STAGES = {
    "dtype": printed("fp16"),
    "adam_beta1": printed(0.9),
    "adam_beta2": printed(0.95),
    "adam_epsilon": ours(1e-8),
    "weight_decay": ours(0.0),
    "max_grad_norm": ours(1.0),
}
_COSINE = {"min_learning_rate_ratio": printed(0.1), "warmup_steps": printed(0)}
_LENGTHS = {
    "max_prompt_tokens": printed(1024), "max_response_tokens": printed(1024), "max_tokens": printed(2048),
    "on_long": printed("filter"),
}


def _sft(rate: float, batch: int) -> Marks:
    """Appendix C.1: 16 epochs, residual dropout 0.2, cosine to 10 % without warm-up."""
    return {
        **_ALL_STAGES, **_COSINE, **_LENGTHS,
        "num_train_epochs": printed(16.0),
        "residual_dropout": printed(0.2),
        "learning_rate": printed(rate),
        "train_batch_size": printed(batch),
    }


def _rl_init(rate: float, batch: int) -> Marks:
    """Appendix C.3: the policy that PPO starts from, 2 epochs with 10 % pretraining data."""
    return {
        **_ALL_STAGES, **_COSINE, **_LENGTHS,
        "num_train_epochs": printed(2.0),
        "pretrain_mix": printed(0.1),
        "residual_dropout": ours(0.2),
        "learning_rate": printed(rate),
        "train_batch_size": printed(batch),
    }


SFT_PRESETS: dict[str, Marks] = {
    "instructgpt-1.3b": _sft(9.65e-6, 32),
    "instructgpt-6b": _sft(9.65e-6, 32),
    "instructgpt-175b": _sft(5.03e-6, 8),
    "instructgpt-1.3b-rl-init": _rl_init(5e-6, 32),
    "instructgpt-6b-rl-init": _rl_init(1.04e-5, 32),
    "instructgpt-175b-rl-init": _rl_init(2.45e-6, 8),
}

# Appendix C.2. The reward model is always of 6B parameters, whatever the size of the policy.
_REWARD: Marks = {
    **_ALL_STAGES, **_COSINE, **_LENGTHS,
    "num_train_epochs": printed(1.0),
    "learning_rate": printed(9e-6),
    "train_batch_size": printed(64),
    "grouped": printed(True),
}
REWARD_PRESETS: dict[str, Marks] = dict.fromkeys(("instructgpt-1.3b", "instructgpt-6b", "instructgpt-175b"), _REWARD)


def _ppo(rate: float, value_rate: float) -> Marks:
    """Appendix C.4. The policy's rate is not printed; the sweep of appendix E.9 diverges above 8.05e-6 without ptx."""
    return {
        **_ALL_STAGES,
        "total_episodes": printed(256_000), "batch_size": printed(512), "mini_batch_size": printed(64),
        "num_ppo_epochs": printed(1),
        "kl_coef": printed(0.02), "cliprange": printed(0.2), "gamma": printed(1.0), "temperature": printed(1.0),
        "lam": ancestral(0.95), "cliprange_value": ancestral(0.2), "vf_coef": ancestral(0.1),
        "entropy_coef": ours(0.0), "whiten_advantages": ancestral(True), "whiten_rewards": ours(False),
        "missing_eos_penalty": ancestral(1.0),
        "max_prompt_tokens": printed(1024), "on_overlong": printed("skip"), "max_response_tokens": printed(1024),
        "ptx_coef": printed(27.8), "ptx_ratio": printed(8.0),
        "ema_decay": printed(0.992), "lr_warmup_iterations": printed(10), "lr_warmup_start": printed(0.1),
        "value_learning_rate": printed(value_rate), "learning_rate": ours(rate),
    }


PPO_PRESETS: dict[str, Marks] = {
    "instructgpt-1.3b": _ppo(8e-6, 9e-6),
    "instructgpt-6b": _ppo(5e-6, 9e-6),
    "instructgpt-175b": _ppo(2.5e-6, 5e-6),
}


def _gpt3(model: str, rate: float, batch_tokens: int, ramp_tokens: int) -> Marks:
    """Table 2.1 and appendix B. Ramps of 4 to 12 billion tokens are printed; which size has which is not."""
    return {
        "model": printed(model),
        "n_positions": printed(2048),
        "learning_rate": printed(rate),
        "train_batch_tokens": printed(batch_tokens),
        "batch_ramp_start": printed(32_000),
        "batch_ramp_tokens": ours(ramp_tokens),
        "warmup_tokens": printed(375_000_000),
        "lr_decay_tokens": printed(260 * BILLION),
        "train_tokens": printed(300 * BILLION),
        "min_learning_rate_ratio": printed(0.1),
        "weight_decay": printed(0.1),
        "max_grad_norm": printed(1.0),
        "adam_beta1": printed(0.9),
        "adam_beta2": printed(0.95),
        "adam_epsilon": printed(1e-8),
    }


PRETRAIN_PRESETS: dict[str, Marks] = {
    "gpt3-125m": _gpt3("gpt3-125m", 6.0e-4, 500_000, 4 * BILLION),
    "gpt3-350m": _gpt3("gpt3-350m", 3.0e-4, 500_000, 4 * BILLION),
    "gpt3-760m": _gpt3("gpt3-760m", 2.5e-4, 500_000, 4 * BILLION),
    "gpt3-1.3b": _gpt3("gpt3-1.3b", 2.0e-4, 1_000_000, 6 * BILLION),
    "gpt3-2.7b": _gpt3("gpt3-2.7b", 1.6e-4, 1_000_000, 6 * BILLION),
    "gpt3-6.7b": _gpt3("gpt3-6.7b", 1.2e-4, 2_000_000, 8 * BILLION),
    "gpt3-13b": _gpt3("gpt3-13b", 1.0e-4, 2_000_000, 10 * BILLION),
    "gpt3-175b": _gpt3("gpt3-175b", 0.6e-4, 3_200_000, 12 * BILLION),
}
