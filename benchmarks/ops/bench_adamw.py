"""adamw beside torch.optim.AdamW, fused, foreach and compiled: a bare step, with clipping, with an average as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

NUMBERS = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY, CLIP, EMA_DECAY = 0.1, 1.0, 0.992
# More than any cache holds: one set of inputs is enough, and three would not fit.
LARGE = 500_000_000

Extra = Literal["", "clip", "clip, average"]
Rival = Literal["fused", "foreach", "compiled"]


def shapes_of(width: int, layers: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Parameters of a GPT: embeddings, and for each layer two norms and four linear layers with biases."""
    layer: list[tuple[int, ...]] = [(width,)] * 4
    for outputs, inputs in ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width)):
        layer += [(outputs, inputs), (outputs,)]
    return [(vocabulary, width), (512, width), *(layer * layers), (width,), (width,)]


def draw(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: str, extra: Extra) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)

        def new(scale: float) -> list[torch.Tensor]:
            return [torch.randn(shape, generator=generator, device=device).mul_(scale) for shape in shapes]

        weights = new(0.02)
        state = {
            "params": [w.to(dtype, copy=True) for w in weights],
            "grads": [g.to(dtype) for g in new(1e-3)],
            "exp_avgs": new(1e-3),
            # Not near 0, where 1 / sqrt(v) would magnify the rounding that the check looks at.
            "exp_avg_sqs": [v.square_().add_(1e-7) for v in new(1e-3)],
            "step": torch.tensor([10], device=device),
            "masters": None if dtype == torch.float32 else weights,
        }
        return {"state": state, "emas": [w.clone() for w in weights] if "average" in extra else [], "optimizers": {}}

    if sum(torch.Size(shape).numel() for shape in shapes) < LARGE:
        return inputs
    only = lru_cache(maxsize=1)(lambda: inputs(0))
    return lambda seed: only()


def stepping(adamw: Callable[..., torch.Tensor], grad_norm: Callable[..., torch.Tensor], extra: Extra) -> Contender:
    """Our op, or its oracle, on the state in place."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        state, emas = inputs["state"], inputs["emas"]
        norm = {"grad_norm": grad_norm(state["grads"]), "max_grad_norm": CLIP} if extra else {}
        average = {"emas": emas, "ema_decay": EMA_DECAY} if emas else {}
        adamw(**state, **NUMBERS, weight_decay=DECAY, **norm, **average)
        return [*state["params"], *emas]

    return contender


def torch_adamw(kind: Rival, extra: Extra) -> Contender:
    """torch.optim.AdamW on the same state; reduced params are copied from float32 masters, as is usual."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        state, emas = inputs["state"], inputs["emas"]
        if kind not in inputs["optimizers"]:
            inputs["optimizers"][kind] = made_optimizer(state, kind)
        step, weights = inputs["optimizers"][kind]
        for weight, grad in zip(weights, state["grads"], strict=True):
            weight.grad = grad.float()
        if extra:
            torch.nn.utils.clip_grad_norm_(weights, CLIP)
        step()
        with torch.no_grad():
            if state["masters"] is not None:
                torch._foreach_copy_(state["params"], weights)
            if emas:
                torch._foreach_lerp_(emas, weights, 1 - EMA_DECAY)
        return [*state["params"], *emas]

    return contender


def made_optimizer(state: Inputs, kind: Rival) -> tuple[Callable[[], object], list[torch.nn.Parameter]]:
    """The optimizer's step, and its parameters and moments in the memory of `state`."""
    weights = [torch.nn.Parameter(w) for w in state["masters"] or state["params"]]
    capturable = kind == "compiled" and weights[0].is_cuda
    optimizer = torch.optim.AdamW(
        weights, weight_decay=DECAY, fused=kind == "fused", foreach=kind != "fused", capturable=capturable, **NUMBERS
    )
    # A count on the GPU would be waited for, except by those that can be captured.
    step = state["step"][0].float() if kind != "foreach" else state["step"][0].float().cpu()
    moments = zip(state["exp_avgs"], state["exp_avg_sqs"], strict=True)
    for weight, (m, v) in zip(weights, moments, strict=True):
        optimizer.state[weight] = {"step": step.clone(), "exp_avg": m, "exp_avg_sq": v}
    return (torch.compile(optimizer.step) if kind == "compiled" else optimizer.step), weights


def sizes(device: str) -> dict[str, tuple[int, int, int]]:
    """Width, layers, vocabulary."""
    if device == "cuda":
        return {"GPT-2 124 M": (768, 12, 50257), "GPT-2 1558 M": (1600, 48, 50257)}
    return {"tiny, 1 M": (64, 4, 8192), "4 x 256, 5 M": (256, 4, 8192), "12 x 512, 42 M": (512, 12, 8192)}


def one_case(label: str, shapes: list[tuple[int, ...]], dtype: torch.dtype, device: str, extra: Extra) -> Case:
    elements = sum(torch.Size(shape).numel() for shape in shapes)
    # Compiling the foreach step of hundreds of tensors takes minutes: once is enough.
    kinds: tuple[Rival, ...] = ("fused",)
    if device == "cuda":
        kinds = ("fused", "foreach", "compiled") if elements < LARGE and not extra else ("fused", "foreach")
    # The norm reads the gradients once more.
    moved = 28 + (dtype.itemsize if extra else 0) + (8 if "average" in extra else 0)
    return Case(
        name=f"{label}, {str(dtype).removeprefix('torch.')}" + (f", {extra}" if extra else ""),
        draw=draw(shapes, dtype, device, extra),
        draw_check=draw(shapes_of(64, 1, 1000), dtype, device, extra),
        ours=stepping(ops.adamw, ops.grad_norm, extra),
        rivals={f"torch {kind}": torch_adamw(kind, extra) for kind in kinds},
        oracle=stepping(ops.adamw_oracle, ops.grad_norm_oracle, extra),
        moved_bytes=float(elements * moved),
        looser={"ulps": 2.0, "why_looser": "biases are small tensors, where plain PyTorch's error is luck"},
    )


def cases(device: str) -> list[Case]:
    extras: tuple[Extra, ...] = ("", "clip", "clip, average") if device == "cuda" else ("", "clip, average")
    return [
        one_case(label, shapes_of(*size), dtype, device, extra)
        for label, size in sizes(device).items()
        for dtype in (torch.float32, torch.bfloat16)
        # float32 at the largest size says nothing new.
        if dtype == torch.bfloat16 or size[0] < 1600
        for extra in extras
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    run("adamw", cases, arguments)
