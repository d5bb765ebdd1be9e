"""The kernels of layer_norm: what they move, in every order of their threads, and broken at every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import ClassVar

import torch

from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_layer_norm
from python_tests.ops.suite import Inputs, New

MULTIPROCESSORS = 1  # few blocks, so that few rows make them walk

Traffic = Mapping[str, Mapping[str, Bytes]]


def rows(count: int, width: int, *, residual: bool = True, float32: bool = False) -> Callable[[New], Inputs]:
    """Inputs, with parameters in float32 where asked for."""

    def draw(new: New) -> Inputs:
        parameter = new.float32 if float32 else new
        inputs = {"x": new(count, width), "weight": parameter(width), "bias": parameter(width)}
        return {**inputs, "residual": new(count, width)} if residual else inputs

    return draw


def traffic(*, forward: tuple[int, int], backward: tuple[int, int], warps: int = 1) -> Callable[[Inputs], Traffic]:
    """Rows move once. forward, backward: rows of a block and blocks of a multiprocessor; warps: of a row, backward."""

    def moved(inputs: Inputs) -> Traffic:
        x, weight = inputs["x"], inputs["weight"]
        count, width = x.shape
        whole, parameter = x.numel() * x.element_size(), width * weight.element_size()
        blocks, back_blocks = (
            min(ceil(count / of_block), MULTIPROCESSORS * of_device) for of_block, of_device in (forward, backward)
        )
        partials = 2 * back_blocks * width * 4
        with_residual = whole if "residual" in inputs else 0
        return {
            "layer_norm": {
                "x": (whole, 0), "residual": (with_residual, 0), "y": (0, whole), "summed": (0, with_residual),
                "weight": (blocks * parameter, 0), "bias": (blocks * parameter, 0),
                "mean": (0, 4 * count), "rstd": (0, 4 * count),
            },
            "layer_norm_backward": {
                "dy": (whole, 0), "dsummed": (with_residual, 0), "summed": (whole, 0), "dx": (0, whole),
                "weight": (back_blocks * parameter, 0), "dweight": (0, parameter), "dbias": (0, parameter),
                "mean": (4 * warps * count, 0), "rstd": (4 * warps * count, 0), "scratch 0": (partials, partials),
            },
        }

    return moved


def case(name: str, inputs: Callable[[New], Inputs], dtype: torch.dtype = torch.float32,
         traffic: Callable[[Inputs], Traffic] | None = None) -> KernelCase:
    return KernelCase(name, inputs, dtype=dtype, traffic=traffic, multiprocessors=MULTIPROCESSORS)


class TestLayerNormKernels(KernelSuite):
    suite = test_layer_norm.TestLayerNorm
    equivalent: ClassVar = {
        ("shuffle_wrong_lane", "row_sum<kAnyWidthThreads>(total"): "a mean that is a little off is corrected by what "
        "it leaves over: any number near the row would do",
    }
    cases = (
        case("a warp a row", rows(37, 40), traffic=traffic(forward=(8, 4), backward=(16, 2))),
        case("any width", rows(5, 37), torch.bfloat16),
        case("any width, more than a block's threads", rows(3, 301)),
        case("two vectors a lane, no residual", rows(17, 264, residual=False), torch.bfloat16,
             traffic(forward=(8, 4), backward=(16, 1))),
        case("parameters in float32", rows(9, 264, float32=True), torch.float16,
             traffic(forward=(8, 4), backward=(16, 1))),
        case("several warps a row", rows(7, 1032), traffic=traffic(forward=(1, 6), backward=(4, 1), warps=4)),
        case("three vectors a lane", rows(6, 260)),
        case("four vectors a lane", rows(3, 388)),
        case("eight vectors a lane", rows(3, 516)),
        case("256 threads a row", rows(2, 2052)),
        case("512 threads a row", rows(2, 4100)),
        case("wider than the backward holds", rows(1, 8196)),
        case("wider than any holds", rows(1, 12292)),
    )
