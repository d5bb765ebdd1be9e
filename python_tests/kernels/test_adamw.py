"""adamw's kernel: 28 bytes an element in every dtype, 36 with the average; every branch; every broken word found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_adamw
from python_tests.ops.suite import SCHEDULES, Inputs, New

CHUNK, WARPS, ROW_BYTES, SMS = 2048, 4, 64, 2
NUMBERS = test_adamw.NUMBERS
AVERAGE = {**NUMBERS, "ema_decay": 0.9}
CLIP = {**NUMBERS, "max_grad_norm": 0.5}


def element_bytes(inputs: Inputs) -> dict[str, Bytes]:
    """Gradients read; weights, moments and average read and written; reduced params written."""
    moved: dict[str, Bytes] = {}
    for i, (param, grad) in enumerate(zip(inputs["params"], inputs["grads"], strict=True)):
        state = 4 * param.numel()
        moved[f"grads[{i}]"] = (grad.nbytes, 0)
        moved[f"params[{i}]"] = (0, param.nbytes) if inputs["masters"] else (state, state)
        for name in ("exp_avgs", "exp_avg_sqs", "masters", "emas"):
            if inputs[name]:
                moved[f"{name}[{i}]"] = (state, state)
    return moved


def traffic(inputs: Inputs) -> Mapping[str, Mapping[str, Bytes]]:
    """The elements, and for each block the step count, the norm and its part of the table."""
    chunks = sum(-(-p.numel() // CHUNK) for p in inputs["params"])
    rows = sum(p.numel() > 0 for p in inputs["params"])
    blocks = min(chunks, SMS * (3 if inputs["emas"] else 4))
    # A row is 64 bytes, and 4 for where it ends; each warp reads a row for each chunk, and the ends of 32 rows at once.
    table = WARPS * (ROW_BYTES * chunks + 4 * rows * blocks)
    moved = {
        **element_bytes(inputs),
        "step": (8 * blocks + 8, 8),
        "applied": (0, 1),
        "scratch 0": (table, ROW_BYTES * rows + 8 * -(-rows // 2)),
    }
    if "grad_norm" in inputs:
        moved["grad_norm"] = (4 * WARPS * blocks, 0)
    return {"adamw": moved}


def behind_a_boundary(*shapes: tuple[int, ...]) -> Any:
    """Every tensor one element behind what its quads would stand on."""

    def inputs(new: New) -> Inputs:
        drawn = test_adamw.draw(*shapes, emas=True)(new)
        return {k: [moved(t) for t in v] if isinstance(v, list) else v for k, v in drawn.items()}

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
        return place.copy_(tensor)

    return inputs


def not_finite(new: New) -> Inputs:
    return {**test_adamw.draw((5, 7), (9,), norm=True)(new), "grad_norm": torch.tensor(float("inf"))}


class TestAdamWKernels(KernelSuite):
    suite = test_adamw.TestAdamW
    cases = (
        KernelCase("float32", test_adamw.draw((8, 16), (3, 700), (4096,)), options=NUMBERS, traffic=traffic,
                   multiprocessors=SMS),
        KernelCase("bfloat16, clipped", test_adamw.draw((4100,), (16,), norm=True), torch.bfloat16, CLIP, traffic,
                   multiprocessors=SMS),
        KernelCase("float16, average", test_adamw.draw((20, 64), (8,), emas=True), torch.float16, AVERAGE, traffic,
                   multiprocessors=SMS),
        KernelCase("float32, average", test_adamw.draw((40,), (8,), emas=True), options=AVERAGE, traffic=traffic,
                   multiprocessors=SMS),
        # More rows than a warp looks at at once, and more chunks than blocks.
        KernelCase("forty tensors", test_adamw.draw(*[(3 + i % 5,) for i in range(40)]), options=NUMBERS,
                   multiprocessors=SMS),
        KernelCase("unaligned", behind_a_boundary((5, 7), (9,)), torch.bfloat16, AVERAGE, multiprocessors=SMS),
        KernelCase("a norm that is not finite", not_finite, torch.float16, CLIP, multiprocessors=SMS),
        KernelCase("tails and nothing", test_adamw.draw((7,), (0, 4), (130,)), options=NUMBERS, multiprocessors=SMS),
    )
    equivalent: ClassVar = {
        ("drop_barrier", "all of this block's writes are made"): "the last block reads nothing that a block wrote",
    }


@pytest.fixture(autouse=True)
def _needs_the_emulator() -> None:
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("average", [False, True])
def test_28_bytes_a_parameter(dtype: torch.dtype, average: bool) -> None:
    """Beside what each block reads of the table, the count and the norm."""
    inputs = test_adamw.draw((3, 700), (64,), emas=average)(New(dtype))
    numbers = AVERAGE if average else NUMBERS
    with simt.executing(accounting=True) as run:
        ops.adamw(**inputs, **numbers)
    own = ("step", "applied", "scratch 0")
    moved = [t for launch in run.launches for name, t in launch.buffers.items() if name not in own]
    elements = sum(p.numel() for p in inputs["params"])
    assert sum(t.loaded_bytes + t.stored_bytes for t in moved) == (36 if average else 28) * elements
    assert [launch.kernel for launch in run.launches] == ["adamw_table", "adamw"]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["schedule"])
def test_a_norm_that_is_not_finite_touches_nothing(schedule: dict[str, Any]) -> None:
    inputs = test_adamw.draw((40, 64), (5,), emas=True)(New(torch.bfloat16))
    before = {k: [t.clone() for t in v] if isinstance(v, list) else v.clone() for k, v in inputs.items()}
    with simt.executing(**schedule):
        applied = ops.adamw(**inputs, **AVERAGE, grad_norm=torch.tensor(float("inf")))
    assert applied.tolist() == [False] and inputs["step"].tolist() == [3]
    for name, tensors in before.items():
        assert all(same_bits(a, b) for a, b in zip(inputs[name], tensors, strict=True)), name


def test_no_tensors_count_a_step() -> None:
    step = torch.tensor([6])
    with simt.executing():
        assert ops.adamw([], [], [], [], step, **NUMBERS).tolist() == [True]
    assert step.tolist() == [7]


@pytest.mark.parametrize("step", [0, 9, 999, 123_456, 10**9])
@pytest.mark.parametrize("placement", ["torch", "tensorflow"])
def test_large_step_counts(step: int, placement: str) -> None:
    """The bias corrections come from beta^t by squaring, on the device; the elements follow the CPU to the last bit."""
    inputs = test_adamw.draw((33,), step=step)(New(torch.float32))
    numbers = {**NUMBERS, "betas": (0.9, 0.9999), "eps_placement": placement}
    call = test_adamw.returning_what_was_written(ops.adamw)
    oracle = test_adamw.returning_what_was_written(ops.adamw_oracle)
    doubled = {k: [t.double() for t in v] if isinstance(v, list) else v for k, v in inputs.items()}
    with simt.executing():
        emulated = call(**inputs, **numbers)
    for ours, true in zip(emulated, oracle(**doubled, **numbers), strict=True):
        # Some ten roundings of 6e-8; numbers near one.
        torch.testing.assert_close(ours.to(true.dtype), true, rtol=1e-6, atol=1e-6)


def test_a_table_of_more_than_one_launch() -> None:
    """300 tensors: the table travels in parts."""
    inputs = test_adamw.draw(*[(1 + i % 3,) for i in range(300)])(New(torch.float32))
    call = test_adamw.returning_what_was_written(ops.adamw)
    with simt.executing(accounting=True) as run:
        emulated = call(**inputs, **NUMBERS)
    assert [launch.kernel for launch in run.launches] == ["adamw_table", "adamw_table", "adamw"]
    for ours, cpu in zip(emulated, call(**inputs, **NUMBERS), strict=True):
        torch.testing.assert_close(ours, cpu, rtol=1e-6, atol=1e-7)
