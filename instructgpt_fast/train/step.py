"""One optimizer step of a model: micro-batches summed into one gradient, checked, applied.

A loss is a sum over what counts. Each micro-batch's sum is multiplied by 1 / (count of the whole batch) before its
backward pass, so that accumulating equals one pass over the large batch up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from instructgpt_fast.optim import AdamW
from instructgpt_fast.train.guard import stop_unless_finite
from instructgpt_fast.train.loop import Run
from instructgpt_fast.train.loss_scale import LossScale
from instructgpt_fast.train.options import OptimizerOptions


@dataclass(frozen=True)
class MicroBatch:
    """A part of a batch: its tensors, and the factor on its summed loss (1 / count of the whole batch).

    tensors: what `loss` needs and what is stored when a loss is not finite. loss: tensors -> f32 scalar, a sum.
    """

    tensors: Mapping[str, Tensor]
    loss: Callable[[Mapping[str, Tensor]], Tensor]
    weight: float


@dataclass(frozen=True)
class StepOutcome:
    """Result of one step: the mean loss, the L2 norm of its gradient before clipping, and whether it was applied."""

    loss: float
    grad_norm: float
    applied: bool


@dataclass
class Updater:
    """A model with its optimizer and loss scale."""

    run: Run
    model: nn.Module
    optimizer: AdamW
    scale: LossScale = field(default_factory=LossScale)

    @classmethod
    def of(cls, run: Run, model: nn.Module, config: OptimizerOptions) -> Updater:
        """Build the optimizer that the options describe."""
        optimizer = AdamW(
            model, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon,
            weight_decay=config.weight_decay, eps_placement=config.adam_eps_placement,
            max_grad_norm=config.max_grad_norm,
        )
        return cls(run, model, optimizer, LossScale.of_dtype(config.dtype))

    def step(
        self, step: int, lr: float, batch: Sequence[MicroBatch], details: Mapping[str, Any] | None = None
    ) -> StepOutcome:
        """Sum the gradients of the micro-batches and apply one update.

        details: plain JSON values stored beside the batch when something is not finite.
        Raises TrainingError when a loss, or (outside fp16, where the loss scale falls instead) a gradient, is not
        finite; weights and moments are then as before the step.
        """
        total = 0.0
        for part in batch:
            loss = part.loss(part.tensors)
            value = float(loss.detach()) * part.weight
            self._check(step, {"loss": value}, part, details)
            (loss * (part.weight * self.scale.scale)).backward()
            total += value
        report = self.optimizer.step(lr, grad_scale=1.0 / self.scale.scale)
        if not report.applied and not self.scale.dynamic:
            self._check(step, {"grad_norm": float("nan")}, batch[-1], details)
        self.scale.update(report.applied)
        self.optimizer.zero_grad()
        return StepOutcome(total, report.grad_norm, report.applied)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the optimizer: the loss scale, in fp16."""
        return {"loss_scale": self.scale.state()} if self.scale.dynamic else {}

    def metrics(self) -> dict[str, float]:
        """What the log says of the update itself: the loss scale, in fp16."""
        return {"loss_scale": self.scale.scale} if self.scale.dynamic else {}

    def restore(self, counters: Mapping[str, Any]) -> None:
        """Continue from the counters of a checkpoint, or start where there are none."""
        if self.scale.dynamic and "loss_scale" in counters:
            self.scale.restore(counters["loss_scale"])

    def _check(
        self, step: int, values: Mapping[str, float], part: MicroBatch, details: Mapping[str, Any] | None
    ) -> None:
        stop_unless_finite(
            self.run.directory, step, values, modules={"model": self.model}, batch=part.tensors, details=details,
            replay=lambda: part.loss(part.tensors),
        )
