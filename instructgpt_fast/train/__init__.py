"""Training stages: one file a stage, its options first and then its loop; `train` runs any of them.

`instructgpt_fast.train(SftConfig(...))` and `instructgpt_fast.train("sft", ...)` are the same call.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from instructgpt_fast.callable_module import make_callable
from instructgpt_fast.config import nearest
from instructgpt_fast.errors import ConfigError

if TYPE_CHECKING:
    from instructgpt_fast.rlhf.scorers import RewardFunction
    from instructgpt_fast.train.loop import TrainResult
    from instructgpt_fast.train.options import RunOptions
    from instructgpt_fast.train.ppo import PpoConfig
    from instructgpt_fast.train.pretrain import PretrainConfig
    from instructgpt_fast.train.reward import RewardConfig
    from instructgpt_fast.train.sft import SftConfig

__all__ = ["PpoConfig", "PretrainConfig", "RewardConfig", "SftConfig", "TrainResult", "config_class", "train"]

# Stage -> its options class and its loop, both in instructgpt_fast.train.<stage>.
STAGES = {
    "pretrain": ("PretrainConfig", "run_pretrain"),
    "sft": ("SftConfig", "run_sft"),
    "reward": ("RewardConfig", "run_reward"),
    "ppo": ("PpoConfig", "run_ppo"),
}
_HOMES = {names[0]: stage for stage, names in STAGES.items()} | {"TrainResult": "loop"}


def config_class(stage: str) -> Any:
    """The options class of a stage. Raises ConfigError for an unknown stage, suggesting the nearest."""
    if stage not in STAGES:
        raise ConfigError(
            f"train: stage must be one of {', '.join(STAGES)}, got {stage!r}{nearest(stage, STAGES)}"
        )
    module = importlib.import_module(f"instructgpt_fast.train.{stage}")
    return getattr(module, STAGES[stage][0])


def train(
    config: RunOptions | str, *, reward_fn: RewardFunction | None = None, **options: Any
) -> TrainResult:
    """Run a training stage and return its checkpoint, its directory and its last metrics.

    config: an options object, on which `options` are set anew; or a stage name, whose options are `options`.
    reward_fn: PPO only, in the place of reward_model: (prompts, responses), two lists of text, to one score a response.
    Raises ConfigError, DataError, CheckpointError, BackendError or TrainingError, each saying what to do;
    KeyboardInterrupt after Ctrl-C, with a checkpoint saved.
    """
    if isinstance(config, str):
        made = config_class(config)(**options)
    else:
        if getattr(config, "stage", "") not in STAGES:
            raise ConfigError(
                f"train: needs a stage name or the options of a stage, got {type(config).__name__}; "
                "pass for example SftConfig(...)."
            )
        made = dataclasses.replace(config, **options) if options else config
    module = importlib.import_module(f"instructgpt_fast.train.{made.stage}")
    run = getattr(module, STAGES[made.stage][1])
    if reward_fn is not None and made.stage != "ppo":
        raise ConfigError(f"train: reward_fn belongs to the stage ppo, got stage {made.stage!r}; leave it out.")
    result: TrainResult = run(made) if reward_fn is None else run(made, reward_fn=reward_fn)
    return result


def __getattr__(name: str) -> Any:
    # The stages import torch and each other's tools, so each is imported when its name is first used.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


make_callable(__name__, train)
