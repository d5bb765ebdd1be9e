"""AdamW over a whole model in one fused call a dtype: clipping, decay, f32 masters, a moving average of the weights.

Not covered: sparse gradients, and per-parameter learning rates.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from instructgpt_fast import ops
from instructgpt_fast.errors import CheckpointError, ConfigError, TrainingError

EpsPlacement = Literal["torch", "tensorflow"]


class StepReport:
    """What one step did; the first look at it waits for the device, a step that nobody asks about waits for nothing."""

    def __init__(self, norm: Tensor, applied: Sequence[Tensor], grad_scale: float) -> None:
        """norm: of all gradients before grad_scale. applied: what each fused call answered."""
        self._norm, self._applied, self._grad_scale = norm, applied, grad_scale

    @functools.cached_property
    def grad_norm(self) -> float:
        """L2 norm of all gradients after grad_scale and before clipping; infinite or NaN when any gradient is."""
        return float(self._norm) * self._grad_scale

    @functools.cached_property
    def applied(self) -> bool:
        """False when the norm was not finite, and then nothing was changed."""
        return all(bool(applied) for applied in self._applied)


@dataclass
class _Slot:
    """One parameter with its f32 state. `master` is None when the parameter itself is f32."""

    parameter: nn.Parameter
    exp_avg: Tensor
    exp_avg_sq: Tensor
    master: Tensor | None
    ema: Tensor | None

    def tensors(self) -> dict[str, Tensor]:
        state = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "master": self.master, "ema": self.ema}
        return {kind: tensor for kind, tensor in state.items() if tensor is not None}


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with decoupled decay on matrices only.

    One-dimensional parameters (biases, norms) are not decayed. Moments are f32; bf16 and fp16 parameters get an f32
    master copy taken when the optimizer is made, so load weights first.
    """

    def __init__(
        self,
        model_or_named_params: nn.Module | Iterable[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        eps_placement: EpsPlacement = "torch",
        max_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
    ) -> None:
        """Make the state for every parameter that requires a gradient.

        betas: decay of the first and second moment (the default is the papers', not torch's).
        eps: added to the root of the second moment; eps_placement says whether after bias correction ("torch") or
            before it ("tensorflow").
        weight_decay: decay per unit of learning rate. max_grad_norm: clip to this L2 norm over all parameters; None
            for no clipping. ema_decay: keep ema = ema_decay * ema + (1 - ema_decay) * weights; None for no average.
        Raises ConfigError when a number is out of range or nothing can be trained.
        """
        _check_options(betas, eps, weight_decay, eps_placement, max_grad_norm, ema_decay)
        named = (
            model_or_named_params.named_parameters()
            if isinstance(model_or_named_params, nn.Module)
            else model_or_named_params
        )
        self.betas, self.eps, self.eps_placement = betas, eps, eps_placement
        self.max_grad_norm, self.ema_decay = max_grad_norm, ema_decay
        self._slots = {name: _make_slot(p, ema_decay is not None) for name, p in named if p.requires_grad}
        if not self._slots:
            raise ConfigError("AdamW: there must be a parameter that requires a gradient, got none; check the model.")
        self.weight_decay = weight_decay
        device = next(iter(self._slots.values())).parameter.device
        self._step = torch.zeros(1, dtype=torch.int64, device=device)

    @property
    def steps_taken(self) -> int:
        """How many steps were applied."""
        return int(self._step)

    @torch.no_grad()
    def step(self, lr: float, grad_scale: float = 1.0) -> StepReport:
        """Apply one update with the gradients in place, unless their norm is not finite.

        lr: learning rate. grad_scale: factor on all gradients before anything else, usually 1 / (loss scale).
        Parameters without a gradient are left alone. Raises TrainingError when no parameter has one.
        """
        calls = _by_dtype(slot for slot in self._slots.values() if slot.parameter.grad is not None)
        if not calls:
            raise TrainingError("AdamW: a step needs gradients, got none on any parameter; run backward first.")
        norm = ops.grad_norm([grad for slots in calls for grad in _gradients(slots)])
        # Every call advances the count it is given: the last gets the count itself, the others copies.
        counts = [self._step.clone() for _ in calls[1:]] + [self._step]
        applied = [
            self._update(slots, count, norm, lr, grad_scale) for slots, count in zip(calls, counts, strict=True)
        ]
        return StepReport(norm, applied, grad_scale)

    def zero_grad(self) -> None:
        """Drop all gradients, so that the next backward writes them instead of adding to them."""
        for slot in self._slots.values():
            slot.parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """The state as a flat mapping: "step" int64 [1], and "exp_avg.<name>", "exp_avg_sq.<name>", "master.<name>"
        (half-precision parameters) and "ema.<name>" (with ema_decay), all f32. The tensors are the live ones."""
        state = {"step": self._step}
        for name, slot in self._slots.items():
            state |= {f"{kind}.{name}": tensor for kind, tensor in slot.tensors().items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state over this one; raises CheckpointError unless names, shapes and dtypes are the same."""
        own = self.state_dict()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise CheckpointError(
                f"AdamW: the saved state must have this optimizer's tensors, got {len(missing)} missing "
                f"{missing[:3]} and {len(unexpected)} unexpected {unexpected[:3]}; resume with the same model, dtype "
                "and ema_decay."
            )
        for name, tensor in own.items():
            other = state[name]
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                raise CheckpointError(
                    f"AdamW: {name} must be {tensor.dtype} {tuple(tensor.shape)}, got {other.dtype} "
                    f"{tuple(other.shape)}; resume with the same model."
                )
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def ema_state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name, f32, the live tensors; raises ConfigError without ema_decay."""
        average = {name: slot.ema for name, slot in self._slots.items() if slot.ema is not None}
        if not average:
            raise ConfigError("AdamW: averaged weights need ema_decay, got none; make the optimizer with one.")
        return average

    @contextlib.contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Put the averaged weights into the model for the length of a `with` block; do not train inside it.

        An f32 parameter borrows the average itself, so nothing is copied.
        """
        average = self.ema_state_dict()
        own = {name: self._slots[name].parameter.data for name in average}
        try:
            for name, ema in average.items():
                parameter = self._slots[name].parameter
                parameter.data = ema.to(parameter.dtype)
            yield
        finally:
            for name, data in own.items():
                self._slots[name].parameter.data = data

    def _update(self, slots: list[_Slot], step: Tensor, norm: Tensor, lr: float, grad_scale: float) -> Tensor:
        """One fused call; answers whether the step was made, in device memory."""
        masters = [slot.master for slot in slots if slot.master is not None]
        emas = [slot.ema for slot in slots if slot.ema is not None]
        return ops.adamw(
            [slot.parameter for slot in slots],
            _gradients(slots),
            [slot.exp_avg for slot in slots],
            [slot.exp_avg_sq for slot in slots],
            step,
            lr=lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=[self.weight_decay if slot.parameter.dim() >= 2 else 0.0 for slot in slots],
            eps_placement=self.eps_placement,
            masters=masters or None,
            emas=emas or None,
            ema_decay=self.ema_decay or 0.0,
            grad_norm=norm,
            max_grad_norm=self.max_grad_norm,
            grad_scale=grad_scale,
        )


def _make_slot(parameter: nn.Parameter, with_ema: bool) -> _Slot:
    data = parameter.detach()
    full = data.dtype == torch.float32
    return _Slot(
        parameter,
        exp_avg=torch.zeros_like(data, dtype=torch.float32, memory_format=torch.contiguous_format),
        exp_avg_sq=torch.zeros_like(data, dtype=torch.float32, memory_format=torch.contiguous_format),
        master=None if full else data.float(),
        ema=data.float().clone() if with_ema else None,
    )


def _by_dtype(slots: Iterable[_Slot]) -> list[list[_Slot]]:
    """What one fused call can serve: parameters of one dtype."""
    calls: dict[torch.dtype, list[_Slot]] = {}
    for slot in slots:
        calls.setdefault(slot.parameter.dtype, []).append(slot)
    return list(calls.values())


def _gradients(slots: list[_Slot]) -> list[Tensor]:
    return [slot.parameter.grad for slot in slots if slot.parameter.grad is not None]


def _check_options(
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    eps_placement: str,
    max_grad_norm: float | None,
    ema_decay: float | None,
) -> None:
    rules = {
        f"betas must both be in [0, 1), got {betas}": all(0.0 <= beta < 1.0 for beta in betas),
        f"eps must be positive, got {eps}": eps > 0.0,
        f"weight_decay must not be negative, got {weight_decay}": weight_decay >= 0.0,
        f"eps_placement must be 'torch' or 'tensorflow', got {eps_placement!r}": eps_placement
        in ("torch", "tensorflow"),
        f"max_grad_norm must be positive or None, got {max_grad_norm}": max_grad_norm is None or max_grad_norm > 0.0,
        f"ema_decay must be in (0, 1) or None, got {ema_decay}": ema_decay is None or 0.0 < ema_decay < 1.0,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ConfigError(f"AdamW: {rule}; correct the option.")
