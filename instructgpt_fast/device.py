"""Which device and dtype a run uses, decided once and said out loud."""

from __future__ import annotations

import torch

from instructgpt_fast.config import nearest
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops._library import operators_on

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of "fp32", "bf16" or "fp16". Raises BackendError for another name."""
    if name not in DTYPES:
        raise BackendError(f"dtype: must be one of {', '.join(DTYPES)}, got {name!r}{nearest(name, DTYPES)}")
    return DTYPES[name]


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device that `name` means and the reason, for one line of output.

    "auto" is the GPU where there is one and this build has a kernel of every operator for it, else the CPU.
    Raises BackendError for a device that is not known, not there, or not served by every operator.
    """
    if name == "auto":
        obstacle = _why_no_cuda()
        if obstacle is None:
            return torch.device("cuda"), "auto: a GPU is there and every operator has a kernel for it"
        return torch.device("cpu"), f"auto: {obstacle}"
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise BackendError(f"device: must be auto, cpu, cuda or cuda:N, got {name!r}; correct the option.") from cause
    if device.type == "cpu":
        return device, "asked for"
    if device.type != "cuda":
        raise BackendError(f"device: must be auto, cpu, cuda or cuda:N, got {name!r}; use device='cpu'.")
    obstacle = _why_no_cuda()
    if obstacle is not None:
        raise BackendError(
            f"device: {name!r} cannot be used: {obstacle}; use device='cpu', or run 'instructgpt-fast doctor' "
            "to see what is missing."
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise BackendError(f"device: {name!r} must be below cuda:{count}, got {count} GPU(s); choose another.")
    return device, "asked for; every operator has a kernel for it"


def _why_no_cuda() -> str | None:
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no GPU"
    missing = sorted(operators_on("cpu") - operators_on("cuda"))
    if missing:
        return f"{len(missing)} operators have no CUDA kernel in this build, among them {missing[0]}"
    return None
