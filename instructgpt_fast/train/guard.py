"""What happens when a loss or a gradient is not finite: the run stops, names the tensor and keeps the batch.

Not covered: a non-finite number that never reaches the loss, for example in a buffer that nothing reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from instructgpt_fast.checkpoint.tensors import save_tensors
from instructgpt_fast.errors import CheckpointError, TrainingError
from instructgpt_fast.files import atomic_write, reporting_write_errors


def first_nonfinite(modules: Mapping[str, nn.Module], replay: Callable[[], object] | None) -> str | None:
    """Name the first tensor that is not finite: weights first, then activations in order of execution, then gradients.

    modules: name -> module, searched in order.
    replay: runs the forward pass of the batch again, so that activations can be looked at; None skips them.
    Returns for example "parameter model.h.0.attn.c_attn.weight (3 of 768 values)", or None when all is finite.
    """
    weight = first_nonfinite_weight(modules)
    if weight is not None:
        return weight
    found = None if replay is None else _first_activation(modules, replay)
    if found is not None:
        return found
    for owner, module in modules.items():
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and not _finite(parameter.grad):
                return f"gradient of {owner}.{name} ({_count(parameter.grad)})"
    return None


def first_nonfinite_weight(modules: Mapping[str, nn.Module]) -> str | None:
    """Name the first parameter or buffer that is not finite, or return None."""
    for name, tensor in _weights(modules):
        if not _finite(tensor):
            return f"{name} ({_count(tensor)})"
    return None


def stop_unless_weights_finite(run_dir: Path, step: int, modules: Mapping[str, nn.Module]) -> None:
    """Raise TrainingError rather than let broken weights become a checkpoint, and push a good one out."""
    broken = first_nonfinite_weight(modules)
    if broken is not None:
        raise TrainingError(
            f"training: the weights of a checkpoint must be finite, got {broken} after step {step}. The last good "
            f"checkpoint is {_last_checkpoint(run_dir)}. Lower the learning rate, or train in fp32 or bf16."
        )


def stop_unless_finite(
    run_dir: Path,
    step: int,
    values: Mapping[str, float],
    *,
    modules: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    details: Mapping[str, Any] | None = None,
    replay: Callable[[], object] | None = None,
) -> None:
    """Raise TrainingError when one of `values` (name -> loss or gradient norm) is not finite.

    The message names the value, the first non-finite tensor, the directory that now holds the batch
    (batch.safetensors and report.json) and the checkpoint that remains.
    batch: the tensors of the batch; details: plain JSON values stored beside them.
    """
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if not broken:
        return
    origin = first_nonfinite(modules, replay) or "none (every weight, activation and gradient is finite)"
    kept = run_dir / f"nonfinite-{step:06d}"
    report = {
        "step": step, "values": {name: str(value) for name, value in values.items()},
        "first_nonfinite": origin, **(details or {}),
    }
    where = f"The batch is in {kept}"
    try:
        with reporting_write_errors(kept, CheckpointError):
            kept.mkdir(exist_ok=True)
            tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in batch.items()}
            save_tensors(kept / "batch.safetensors", tensors)
        atomic_write(kept / "report.json", json.dumps(report, indent=1) + "\n", error=CheckpointError)
    except CheckpointError as cause:
        # A full disk must not hide why the run stops.
        where = f"The batch could not be kept ({cause})"
    raise TrainingError(
        f"training: {', '.join(broken)} must be finite, got {values[broken[0]]} at step {step}. First tensor that is "
        f"not finite: {origin}. {where}; the last good checkpoint is {_last_checkpoint(run_dir)}. "
        "Lower the learning rate, look at the batch, or train in fp32 or bf16."
    )


def _last_checkpoint(run_dir: Path) -> str:
    return max((path.name for path in run_dir.glob("checkpoint-*")), default="none")


def _weights(modules: Mapping[str, nn.Module]) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for owner, module in modules.items():
        found += [(f"parameter {owner}.{name}", tensor) for name, tensor in module.named_parameters()]
        found += [(f"buffer {owner}.{name}", tensor) for name, tensor in module.named_buffers()]
    return found


def _first_activation(modules: Mapping[str, nn.Module], replay: Callable[[], object]) -> str | None:
    found: list[str] = []

    def watch(label: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            tensors = [output] if isinstance(output, Tensor) else output if isinstance(output, tuple) else []
            for tensor in tensors:
                if isinstance(tensor, Tensor) and not found and not _finite(tensor):
                    found.append(f"activation {label} ({_count(tensor)})")

        return look

    hooks = [
        part.register_forward_hook(watch(f"{owner}.{name}" if name else owner))
        for owner, module in modules.items() for name, part in module.named_modules()
    ]
    try:
        with torch.no_grad():
            replay()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _count(tensor: Tensor) -> str:
    return f"{int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} values"
