"""The kernels of bias_gelu: what they move, in every order of their threads, and broken at every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

import torch

from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_bias_gelu
from python_tests.ops.suite import Inputs, New

MULTIPROCESSORS = 1  # few blocks, so that few rows make them walk
THREADS = 256
COUNTERS = 32  # of a launch: panels that have a last block of their own

EXACT = "none"


def rows(count: int, width: int, *, float32: bool = False) -> Callable[[New], Inputs]:
    """Inputs, with the bias in float32 where asked for."""
    return lambda new: {"x": new(count, width, scale=2.0), "bias": (new.float32 if float32 else new)(width)}


def groups(count: int, width: int, lanes: int, most: int, blocks: int) -> int:
    """Blocks that share a panel's rows."""
    threads_x = next(t for t in (8, 16, 32) if width <= t * lanes or t == 32)
    panels = min(ceil(width / (threads_x * lanes)), most)
    return min(ceil(count / (THREADS // threads_x)), ceil(MULTIPROCESSORS * blocks / panels))


def moved(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """Everything once; the bias once a group, and of each group a row of sums."""
    x, bias = inputs["x"], inputs["bias"]
    count, width = x.shape
    whole, of_bias, lanes = x.numel() * x.element_size(), width * bias.element_size(), 16 // x.element_size()
    forward = groups(count, width, lanes, width, 4)
    backward = groups(count, width, lanes, COUNTERS, 2)
    sums = 4 * width * backward
    return {
        "bias_gelu": {"x": (whole, 0), "bias": (forward * of_bias, 0), "output 0": (0, whole)},
        "bias_gelu_backward": {
            "dy": (whole, 0), "x": (whole, 0), "bias": (backward * of_bias, 0), "dx": (0, whole),
            "scratch 0": (sums, sums), "dbias": (0, of_bias),
        },
    }


def case(name: str, inputs: Callable[[New], Inputs], dtype: torch.dtype = torch.float32,
         approximate: str = "tanh", *, counted: bool = False) -> KernelCase:
    return KernelCase(name, inputs, dtype=dtype, options={"approximate": approximate},
                      traffic=moved if counted else None, multiprocessors=MULTIPROCESSORS)


class TestBiasGeluKernels(KernelSuite):
    suite = test_bias_gelu.TestBiasGelu
    cases = (
        case("odd width", rows(7, 37), torch.bfloat16),
        case("narrow", rows(70, 40), torch.bfloat16, EXACT, counted=True),
        case("half as wide as a panel", rows(35, 72), torch.float16, counted=True),
        case("several panels, bias in float32", rows(20, 520, float32=True), torch.bfloat16, counted=True),
        case("more rows than are on their way at once", rows(101, 128), counted=True),
        case("exact, in float32", rows(5, 260), approximate=EXACT, counted=True),
        case("more panels than counters", rows(2, 1027)),
        case("odd width, exact", rows(3, 33), torch.float16, EXACT),
    )
