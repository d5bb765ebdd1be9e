"""Which device and dtype a run uses, decided once and said out loud."""

from __future__ import annotations

import torch

from instructgpt_fast.config import nearest
from instructgpt_fast.errors import BackendError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of "fp32", "bf16" or "fp16". Raises BackendError for another name."""
    if name not in DTYPES:
        raise BackendError(f"dtype: must be one of {', '.join(DTYPES)}, got {name!r}{nearest(name, DTYPES)}")
    return DTYPES[name]


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device that `name` means and the reason, for one line of output.

    Raises BackendError for a device that is not known, not there, or not served.
    """
    if name == "auto":
        return torch.device("cpu"), "auto: the CPU, since the training ops have kernels for the CPU only"
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise BackendError(f"device: must be auto, cpu, cuda or cuda:N, got {name!r}; correct the option.") from cause
    if device.type == "cpu":
        return device, "asked for"
    if device.type != "cuda":
        raise BackendError(f"device: must be auto, cpu, cuda or cuda:N, got {name!r}; use device='cpu'.")
    if not torch.cuda.is_available():
        raise BackendError(
            f"device: {name!r} needs an NVIDIA GPU and a CUDA build of torch, got torch {torch.__version__} "
            "that sees no GPU; use device='cpu', or run 'instructgpt-fast doctor' to see what is missing."
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise BackendError(f"device: {name!r} must be below cuda:{count}, got {count} GPU(s); choose another.")
    return device, "asked for"
