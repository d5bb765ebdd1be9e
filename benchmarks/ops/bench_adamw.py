"""adamw beside torch.optim.AdamW(fused=True): a bare step, and a step with clipping and an average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

NUMBERS = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY, CLIP, EMA_DECAY = 0.1, 1.0, 0.992


def shapes_of(width: int, layers: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Parameters of a GPT: embeddings, and for each layer two norms and four linear layers with biases."""
    layer: list[tuple[int, ...]] = [(width,)] * 4
    for outputs, inputs in ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width)):
        layer += [(outputs, inputs), (outputs,)]
    return [(vocabulary, width), (512, width), *(layer * layers), (width,), (width,)]


def draw(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: str) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)

        def new(scale: float) -> list[torch.Tensor]:
            return [torch.randn(shape, generator=generator).mul_(scale).to(device) for shape in shapes]

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
        return {"state": state, "emas": [w.clone() for w in weights], "optimizer": []}

    return inputs


def stepping(adamw: Callable[..., torch.Tensor], grad_norm: Callable[..., torch.Tensor], *, clipped: bool) -> Contender:
    """Our op, or its oracle, on the state in place."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        state, emas = inputs["state"], inputs["emas"]
        if not clipped:
            adamw(**state, **NUMBERS, weight_decay=DECAY)
            return state["params"]
        norm = grad_norm(state["grads"])
        adamw(
            **state, **NUMBERS, weight_decay=DECAY,
            grad_norm=norm, max_grad_norm=CLIP, emas=emas, ema_decay=EMA_DECAY,
        )  # fmt: skip
        return [*state["params"], *emas]

    return contender


def torch_fused(*, clipped: bool) -> Contender:
    """torch.optim.AdamW(fused=True) on the same state; reduced params are copied from float32 masters, as is usual."""

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        state, emas = inputs["state"], inputs["emas"]
        if not inputs["optimizer"]:
            inputs["optimizer"].append(made_optimizer(state))
        optimizer, weights = inputs["optimizer"][0]
        if state["masters"] is not None:
            for weight, grad in zip(weights, state["grads"], strict=True):
                weight.grad = grad.float()
        if clipped:
            torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        with torch.no_grad():
            if state["masters"] is not None:
                torch._foreach_copy_(state["params"], weights)
            if clipped:
                torch._foreach_lerp_(emas, weights, 1 - EMA_DECAY)
        return [*state["params"], *(emas if clipped else ())]

    return contender


def made_optimizer(state: Inputs) -> tuple[torch.optim.Optimizer, list[torch.nn.Parameter]]:
    """The optimizer, its parameters and moments in the memory of `state`."""
    weights = [torch.nn.Parameter(w) for w in state["masters"] or state["params"]]
    optimizer = torch.optim.AdamW(weights, weight_decay=DECAY, fused=True, **NUMBERS)
    moments = zip(state["exp_avgs"], state["exp_avg_sqs"], strict=True)
    for weight, grad, (m, v) in zip(weights, state["grads"], moments, strict=True):
        weight.grad = grad.float()
        optimizer.state[weight] = {"step": state["step"][0].float(), "exp_avg": m, "exp_avg_sq": v}
    return optimizer, weights


def cases(device: str) -> list[Case]:
    sizes = {"tiny, 1 M": (64, 4, 8192), "4 x 256, 5 M": (256, 4, 8192), "12 x 512, 42 M": (512, 12, 8192)}
    found = []
    for label, size in sizes.items():
        shapes = shapes_of(*size)
        elements = sum(torch.Size(shape).numel() for shape in shapes)
        for dtype in (torch.float32, torch.bfloat16):
            for clipped in (False, True):
                found.append(
                    Case(
                        name=f"{label}, {str(dtype).removeprefix('torch.')}" + (", clip, average" if clipped else ""),
                        draw=draw(shapes, dtype, device),
                        draw_check=draw(shapes_of(64, 1, 1000), dtype, device),
                        ours=stepping(ops.adamw, ops.grad_norm, clipped=clipped),
                        rivals={"torch fused": torch_fused(clipped=clipped)},
                        oracle=stepping(ops.adamw_oracle, ops.grad_norm_oracle, clipped=clipped),
                        moved_bytes=elements * (28.0 + (8 + (4 if dtype == torch.float32 else 2) if clipped else 0)),
                        looser={
                            "ulps": 2.0,
                            "why_looser": "biases are small tensors, where plain PyTorch's error is luck",
                        },
                    )
                )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    run("adamw", cases, arguments)
