"""The state of every random generator a run draws from, as plain JSON values.

Not covered: generators that a caller made for itself; those belong to its own counters.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instructgpt_fast.errors import CheckpointError


def capture() -> dict[str, Any]:
    """Return the states of torch (CPU, and CUDA once it is in use), numpy's global generator and Python's."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": [_to_hex(state) for state in devices],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "python": [version, list(numbers), gauss],
    }


def restore(state: dict[str, Any]) -> None:
    """Set the generators to captured states; raises CheckpointError when they do not fit."""
    try:
        torch.set_rng_state(_from_hex(state["torch"]))
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([_from_hex(device) for device in state["cuda"]])
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
    except (KeyError, TypeError, ValueError, RuntimeError) as cause:
        raise CheckpointError(
            f"checkpoint: the random states must fit torch {torch.__version__} and its devices, got: {cause}; "
            "resume with the versions and the number of devices that saved them."
        ) from cause


def _to_hex(state: Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
