"""A training step computed three times from one set of weights, and its judgement by the numerics rule.

In float64 with the oracles in place of the ops (the truth), by the CPU executions (the yardstick), and by the CUDA
kernels under the emulator (what is judged).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instructgpt_fast import ops, simt
from instructgpt_fast.ops import adamw_oracle
from instructgpt_fast.optim import AdamW
from python_tests.accuracy import compare

LR, DECAY, BETAS, EPS = 1e-3, 0.1, (0.9, 0.95), 1e-8
Models = dict[str, Any]  # modules, each of the kind that a stage trains

needs_the_emulator = pytest.mark.skipif(
    not simt.available(), reason="built without the emulator: INSTRUCTGPT_FAST_SIMT=ON builds it")


@contextmanager
def oracles_in_place_of_ops() -> Iterator[None]:
    """Every reference to an op, here and in the package, leads to its oracle; `.float()` leaves float64 as it is."""
    patch = pytest.MonkeyPatch()
    swapped = {name: getattr(ops, f"{name}_oracle") for name in ops.__all__ if f"{name}_oracle" in ops.__all__}
    ours = ("instructgpt_fast.", "python_tests.train.")
    modules = [m for n, m in sys.modules.items() if n.startswith(ours) and "._" not in n]
    for module in modules:
        for name, oracle in swapped.items():
            if getattr(module, name, None) is getattr(ops, name) and module is not ops:
                patch.setattr(module, name, oracle)
    for name, oracle in swapped.items():
        patch.setattr(ops, name, oracle)
    narrow = torch.Tensor.float
    patch.setattr(torch.Tensor, "float", lambda t: t if t.dtype == torch.float64 else narrow(t))
    try:
        yield
    finally:
        patch.undo()


def gradients(models: Models, stage: Callable[[Models], None], around: AbstractContextManager[object]) -> Models:
    own = copy.deepcopy(models)
    with around:
        stage(own)
    return own


def flat(models: Models, what: Callable[[nn.Parameter], Tensor | None], truths: Models) -> Tensor:
    """All tensors in one row, each divided by its size in float64, so that none is lost behind a larger one.

    A tensor that is nothing but cancellation (a bias that shifts all scores alike has the gradient 0) is left out.
    The truth stays float64; the others become float32, whose ulp the comparer then grants.
    """
    pairs = [
        (what(parameter), what(truth))
        for name, module in models.items()
        for parameter, truth in zip(module.parameters(), truths[name].parameters(), strict=True)
    ]
    found = [(v.detach().double(), truth.double()) for v, truth in pairs if v is not None and truth is not None]
    sizes = [truth.square().mean().sqrt() for _, truth in found]
    parts = zip(found, sizes, strict=True)
    row = torch.cat([(v / size).reshape(-1) for (v, _), size in parts if size > 1e-9 * max(sizes)])
    return row if models is truths else row.float()


def judged_step(models: Models, stage: Callable[[Models], None], **executing: Any) -> simt.Run:
    """One step by the emulated kernels, gradients and weights judged by the numerics rule; what was launched."""
    double = {name: copy.deepcopy(module).double() for name, module in models.items()}
    truth = gradients(double, stage, oracles_in_place_of_ops())
    on_cpu = gradients(models, stage, nullcontext())
    with simt.executing(schedule="random", seed=7, accounting=True, **executing) as run:
        emulated = gradients(models, stage, nullcontext())
        # Adam's first step divides a gradient by its own size and so turns rounding into whole steps where there is
        # nothing else: both steps start from the same gradients, which the line above has made and the next one judges.
        stepped = with_gradients(on_cpu, next(models["policy"].parameters()).dtype)
        step(stepped)
    assert run.launches, "no kernel ran"
    assert not run.not_emulated
    compare(*(flat(m, lambda p: p.grad, truth) for m in (emulated, truth, on_cpu)), name=f"{stage.__name__}: gradients")
    truth = with_gradients(on_cpu, torch.float64)
    oracle_step(truth)
    step(on_cpu)
    compare(*(flat(m, moved, truth) for m in (stepped, truth, on_cpu)), name=f"{stage.__name__}: weights")
    return run


def moved(parameter: nn.Parameter) -> Tensor | None:
    return None if parameter.grad is None else parameter.data


def with_gradients(models: Models, dtype: torch.dtype) -> Models:
    """A copy of weights and gradients, in a dtype that holds them."""
    own = {name: copy.deepcopy(module).to(dtype) for name, module in models.items()}
    for name, module in models.items():
        for parameter, source in zip(own[name].parameters(), module.parameters(), strict=True):
            parameter.grad = None if source.grad is None else source.grad.to(dtype)
    return own


def step(models: Models) -> None:
    for module in models.values():
        if any(p.grad is not None for p in module.parameters()):
            AdamW(module, betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=1.0).step(LR)


def oracle_step(models: Models) -> None:
    with torch.no_grad():
        for module in models.values():
            active = [p for p in module.parameters() if p.grad is not None]
            if not active:
                continue
            grads = [p.grad for p in active if p.grad is not None]
            norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
            zeros = [torch.zeros_like(p) for p in active]
            adamw_oracle(
                [p.data for p in active], grads, zeros, [z.clone() for z in zeros], torch.zeros(1, dtype=torch.int64),
                lr=LR, betas=BETAS, eps=EPS, weight_decay=[DECAY if p.dim() >= 2 else 0.0 for p in active],
                grad_norm=norm, max_grad_norm=1.0,
            )
