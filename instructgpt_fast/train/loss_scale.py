"""Dynamic loss scaling for fp16, whose gradients would vanish below 6e-8 without it.

Source: Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from instructgpt_fast.errors import TrainingError

INITIAL = 2.0**16
SMALLEST = 2.0**-14
GROWTH_STEPS = 2000


@dataclass
class LossScale:
    """The factor on the loss: halved when a gradient overflows, doubled after 2000 steps without overflow."""

    scale: float = 1.0
    clean_steps: int = 0
    dynamic: bool = False

    @classmethod
    def of_dtype(cls, dtype: str) -> LossScale:
        """Dynamic scaling for "fp16"; the constant 1 for "fp32" and "bf16", whose exponents need none."""
        return cls(scale=INITIAL, dynamic=True) if dtype == "fp16" else cls()

    def update(self, applied: bool) -> None:
        """Learn whether the step was applied. Raises TrainingError when no scale is small enough."""
        if not self.dynamic:
            return
        if not applied:
            self.scale, self.clean_steps = self.scale / 2, 0
            if self.scale < SMALLEST:
                raise TrainingError(
                    f"fp16: gradients must fit fp16 at some loss scale, got an overflow at {self.scale * 2:g}; "
                    "lower the learning rate or train in bf16 or fp32."
                )
            return
        self.clean_steps += 1
        if self.clean_steps >= GROWTH_STEPS:
            self.scale, self.clean_steps = self.scale * 2, 0

    def state(self) -> dict[str, float | int]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "clean_steps": self.clean_steps}

    def restore(self, state: dict[str, float | int]) -> None:
        """Continue from `state()`."""
        self.scale, self.clean_steps = float(state["scale"]), int(state["clean_steps"])
