"""Which checkpoint of a fine-tuning run is its result: by reward on validation prompts, or by evaluation loss.

The paper chooses SFT models by reward-model score, because the loss overfits after one epoch while the score still
rises (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instructgpt_fast import checkpoint
from instructgpt_fast.evaluate import score_sequences
from instructgpt_fast.generate import SamplingConfig, sample
from instructgpt_fast.model import ScalarModel
from instructgpt_fast.train.loop import Run, Training, TrainResult


@dataclass(frozen=True)
class Judge:
    """A reward model and the prompts whose answers it scores."""

    reward_model: ScalarModel
    prompts: Sequence[list[int]]
    sampling: SamplingConfig
    batch_size: int

    def score(self, training: Training) -> float:
        """Mean reward-model score of one sampled answer to each prompt.

        The answers of a prompt are drawn from the same seed at every evaluation, so that checkpoints differ by
        their weights and not by luck; no other random state is touched.
        """
        model = training.model
        was_training = model.training
        model.eval()
        answers = sample(
            model, list(self.prompts), self.sampling, eos_id=training.tokenizer.eos_id, batch_size=self.batch_size,
        )
        model.train(was_training)
        sequences = [prompt + answer.tokens for prompt, answer in zip(self.prompts, answers, strict=True)]
        return float(score_sequences(self.reward_model, sequences, batch_size=self.batch_size).mean())


@dataclass
class Selector:
    """Keeps the best model of a run in <run>/best-<step>; its memory is in the training's counters."""

    run: Run
    training: Training
    judge_by: Judge | None

    def judge(self, step: int, scores: dict[str, float]) -> dict[str, float]:
        """Add the reward to the scores of an evaluation when there is a judge, and keep the model if it is the best."""
        if self.judge_by is not None:
            scores = {**scores, "eval_reward": self.judge_by.score(self.training)}
        counters = self.training.counters
        # Higher is better for both: a reward, or a loss with its sign turned.
        value = scores["eval_reward"] if self.judge_by is not None else -scores["eval_loss"]
        if math.isfinite(value) and ("best" not in counters or value > counters["best"]["value"]):
            self._keep(step)
            counters["best"] = {"step": step, "value": value, "metrics": scores}
        counters["metrics"] = scores
        return scores

    def restore(self) -> None:
        """After resuming, forget a best model that is not in this run's directory: it can be no result."""
        best = self.training.counters.get("best")
        if best is not None and not self._path(best["step"]).is_dir():
            self.run.say(f"the best model so far (step {best['step']}) is not in {self.run.directory}: choosing anew")
            del self.training.counters["best"]

    def finish(self, total: int) -> TrainResult:
        """Finish the run with the best model as its result, where one was judged."""
        best = self.training.counters.get("best")
        if best is None:
            return self.run.finish(total, self.training, self.training.counters["metrics"])
        metrics = {**best["metrics"], "best_step": float(best["step"])}
        result = self.run.finish(total, self.training, metrics, chosen=self._path(best["step"]))
        self.prune()
        return result

    def _path(self, step: int) -> Path:
        return self.run.directory / f"best-{step:06d}"

    def _keep(self, step: int) -> None:
        training = self.training
        kept = self._path(step)
        if kept.exists():
            # An interrupted run judged this step before; its continuation computes the same weights again.
            shutil.rmtree(kept)
        checkpoint.save_checkpoint(
            kept, model=training.model, tokenizer=training.tokenizer, prompt_format=training.prompt_format,
            stage=self.run.stage, trainer=None,
        )

    def prune(self) -> None:
        """Drop all but the best. Called after a checkpoint: until then the one before may still name another best."""
        best = self.training.counters.get("best")
        for path in self.run.directory.glob("best-*"):
            if best is not None and path != self._path(best["step"]):
                shutil.rmtree(path)
