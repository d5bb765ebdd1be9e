"""adamw against plain torch and torch.optim.AdamW: one step, many steps, clipping, masters, average, refusal of NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast import ops
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from python_tests.accuracy import same_bits
from python_tests.ops.suite import BadCall, Case, Inputs, New, OpSuite, Sabotage

NUMBERS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
WRITTEN = ("params", "exp_avgs", "exp_avg_sqs", "step", "masters", "emas")


def returning_what_was_written(function: Any) -> Any:
    """The op on copies of what it writes, returned with its own result; state is float32 unless all is float64."""

    def call(**arguments: Any) -> list[torch.Tensor]:
        for name in WRITTEN:
            value = arguments.get(name)
            if isinstance(value, torch.Tensor):
                arguments[name] = value.clone()
            elif value is not None:
                arguments[name] = [dense_copy(t) for t in value]
        applied = function(**arguments)
        outputs = [applied]
        for name in WRITTEN:
            value = arguments.get(name)
            outputs += [value] if isinstance(value, torch.Tensor) else list(value or ())
        return outputs

    return call


def dense_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, and as far from the beginning of its memory as the tensor: kernels care how an address ends."""
    if torch.compiler.is_compiling():
        return tensor.clone(memory_format=torch.contiguous_format)
    offset = tensor.storage_offset()
    return tensor.new_empty(offset + tensor.numel())[offset:].view(tensor.shape).copy_(tensor)


def draw(*shapes: tuple[int, ...], step: int = 3, emas: bool = False, norm: bool = False) -> Any:
    def inputs(new: New) -> Inputs:
        weights = [new.float32(*shape) for shape in shapes]
        reduced = new.dtype != torch.float32
        drawn: Inputs = {
            "params": [w.to(new.dtype) for w in weights],
            "grads": [new(*shape) for shape in shapes],
            "exp_avgs": [new.float32(*shape) for shape in shapes],
            # A sum of squares: not negative, and not near 0, where 1 / sqrt(v) magnifies every rounding.
            "exp_avg_sqs": [new.float32(*shape).square() + 0.1 for shape in shapes],
            "step": torch.tensor([step]),
            "masters": weights if reduced else None,
            "emas": [w + new.float32(*w.shape, scale=0.1) for w in weights] if emas else None,
        }
        if norm:
            drawn["grad_norm"] = ops.grad_norm_oracle([g.float() for g in drawn["grads"]])
        return drawn

    return inputs


SHAPES = ((7, 5), (3,), (2, 3, 4))


def swap_moments(inputs: Inputs) -> Inputs:
    return {**inputs, "exp_avgs": inputs["exp_avg_sqs"], "exp_avg_sqs": [m.square() for m in inputs["exp_avgs"]]}


class TestAdamW(OpSuite):
    name = "adamw"
    op = staticmethod(returning_what_was_written(ops.adamw))
    oracle = staticmethod(returning_what_was_written(ops.adamw_oracle))
    yardstick = staticmethod(returning_what_was_written(ops.adamw_oracle))
    cases = (
        Case("several shapes", draw(*SHAPES), NUMBERS),
        Case("several blocks", draw((130, 300), (16384,), (5,)), NUMBERS),
        Case("first step", draw(*SHAPES, step=0), NUMBERS),
        # beta^t is far from 0 and from 1: its rounding shows if it ever does.
        Case("many steps", draw(*SHAPES, step=99_999), {**NUMBERS, "betas": (0.999, 0.99999)}),
        Case("eps before correction", draw(*SHAPES), {**NUMBERS, "eps_placement": "tensorflow", "eps": 1e-3}),
        Case("eps after correction", draw(*SHAPES), {**NUMBERS, "eps": 1e-3}),
        Case("average", draw(*SHAPES, emas=True), {**NUMBERS, "ema_decay": 0.992}),
        Case("clipped", draw(*SHAPES, norm=True), {**NUMBERS, "max_grad_norm": 0.5, "grad_scale": 0.25}),
        Case("not clipped", draw(*SHAPES, norm=True), {**NUMBERS, "max_grad_norm": 1e6, "grad_scale": 0.25}),
        Case("one decay each", draw(*SHAPES), {**NUMBERS, "weight_decay": (0.1, 0.0, 0.5)}),
        Case("empty tensor", draw((0, 4), (3,)), NUMBERS),
    )
    sabotages = (
        Sabotage("gradients of another tensor", lambda i: {**i, "grads": [g.roll(1) for g in i["grads"]]}),
        Sabotage("one step too many", lambda i: {**i, "step": i["step"] + 1}),
        Sabotage("moments swapped", swap_moments),
    )
    bad_calls = (
        BadCall("too few gradients", lambda i: {**i, "grads": i["grads"][1:]}, ValueError, "grads.* 3, got 2"),
        BadCall("shape of a gradient", lambda i: {**i, "grads": [g[None] for g in i["grads"]]}, ValueError, "grads"),
        BadCall("bf16 state", lambda i: {**i, "exp_avgs": [m.bfloat16() for m in i["exp_avgs"]]}, TypeError, "bfloat"),
        BadCall("masters of f32", lambda i: {**i, "masters": i["params"]}, ValueError, "left out"),
        BadCall("no masters", lambda i: {**i, "params": [p.half() for p in i["params"]]}, ValueError, "masters are"),
        BadCall("int32 step", lambda i: {**i, "step": i["step"].int()}, TypeError, "int64"),
        BadCall("clipping without norm", lambda i: {**i, "max_grad_norm": 1.0}, ValueError, "needs grad_norm"),
        BadCall("beta 1", lambda i: {**i, "betas": (1.0, 0.9)}, ValueError, "betas"),
        BadCall("eps 0", lambda i: {**i, "eps": 0.0}, ValueError, "eps"),
        BadCall("negative lr", lambda i: {**i, "lr": -1.0}, ValueError, "lr"),
        BadCall("NaN scale", lambda i: {**i, "grad_scale": math.nan}, ValueError, "grad_scale"),
        BadCall("two decays", lambda i: {**i, "weight_decay": [0.1, 0.2]}, ValueError, "weight_decay.* 3, got 2"),
        BadCall("unknown placement", lambda i: {**i, "eps_placement": "jax"}, ValueError, "'jax'"),
    )

    def looser(self, what: str, case: Case, dtype: torch.dtype) -> dict[str, Any]:
        """A tensor of three numbers has no statistics; and a weight is the difference of two rounded numbers."""
        return {"ulps": 2.0, "why_looser": "the tensors are small: plain PyTorch's error is 0 by luck in some"}


def state_of(shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(shape, generator=generator) for shape in shapes]
    return {
        "params": [w.to(dtype) for w in weights],
        "exp_avgs": [torch.zeros(shape) for shape in shapes],
        "exp_avg_sqs": [torch.zeros(shape) for shape in shapes],
        "step": torch.zeros(1, dtype=torch.int64),
        "masters": None if dtype == torch.float32 else weights,
    }


def test_by_hand() -> None:
    """The first step moves a weight by lr against the sign of its gradient; decay takes lr wd of it."""
    state = state_of(((1,),))
    state["params"] = [torch.tensor([2.0])]
    applied = ops.adamw(grads=[torch.tensor([-123.0])], **state, **{**NUMBERS, "lr": 0.5})
    assert applied.tolist() == [True] and state["step"].tolist() == [1]
    # 2 (1 - 0.5 * 0.1) + 0.5; a few roundings of float32.
    torch.testing.assert_close(state["params"][0], torch.tensor([2.4]), rtol=1e-6, atol=0.0)


def test_follows_torch_optim_over_many_steps() -> None:
    shapes = ((20, 30), (17,))
    state = state_of(shapes)
    theirs = [torch.nn.Parameter(p.clone()) for p in state["params"]]
    optimizer = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        grads = [torch.randn(shape, generator=generator) for shape in shapes]
        for parameter, grad in zip(theirs, grads, strict=True):
            parameter.grad = grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(theirs, 3.0)
        optimizer.step()
        ours_norm = ops.grad_norm(grads)
        torch.testing.assert_close(ours_norm, norm, rtol=1e-6, atol=0.0)
        ops.adamw(grads=grads, **state, **NUMBERS, grad_norm=ours_norm, max_grad_norm=3.0)
    for ours, parameter in zip(state["params"], theirs, strict=True):
        # Weights of order one after 50 steps of some 1e-2, each step with a few roundings of 6e-8 relative.
        torch.testing.assert_close(ours, parameter.detach(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norm_that_is_not_finite_touches_nothing(value: float) -> None:
    state = state_of(((4, 4), (3,)), torch.bfloat16)
    emas = [m.clone() for m in state["masters"]]
    before = {k: [t.clone() for t in v] for k, v in state.items()}
    grads = [torch.ones(4, 4), torch.ones(3)]
    grads[0][1, 2] = value
    grads = [g.bfloat16() for g in grads]
    applied = ops.adamw(
        grads=grads, **state, **NUMBERS, emas=emas, ema_decay=0.5, grad_norm=ops.grad_norm(grads), max_grad_norm=1.0
    )
    assert applied.tolist() == [False]
    for name, tensors in before.items():
        assert all(same_bits(now, old) for now, old in zip(state[name], tensors, strict=True)), name
    assert all(same_bits(now, old) for now, old in zip(emas, before["masters"], strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masters_keep_what_rounding_loses(dtype: torch.dtype) -> None:
    """Steps of 1e-4 on a weight of 1 are lost in bfloat16 and add up in its master; the weight is that, rounded."""
    state = state_of(((8,),), dtype)
    state["params"], state["masters"] = [torch.ones(8, dtype=dtype)], [torch.ones(8)]
    for _ in range(100):
        ops.adamw(grads=[torch.ones(8, dtype=dtype)], **state, **{**NUMBERS, "lr": 1e-4, "weight_decay": 0.0})
    # 100 steps of lr each against a gradient of constant sign.
    torch.testing.assert_close(state["masters"][0], torch.full((8,), 0.99), rtol=1e-5, atol=0.0)
    assert same_bits(state["params"][0], state["masters"][0].to(dtype))


def test_equal_bits_for_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            state = state_of(((300, 200), (3,), (70_000,)))
            for _ in range(3):
                ops.adamw(grads=[p.clone() for p in state["params"]], **state, **NUMBERS)
            results.append(state["params"])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_stale_backward_pass_raises() -> None:
    """Weights that were stepped between forward and backward are noticed, as with torch's optimizers."""
    state = state_of(((3, 3),))
    weight = torch.nn.Parameter(state["params"][0])
    state["params"] = [weight]
    loss = (weight * weight).sum()
    ops.adamw(grads=[torch.ones(3, 3)], **state, **NUMBERS)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_state_that_is_not_contiguous_is_refused() -> None:
    state = state_of(((4, 6),))
    state["params"] = [torch.ones(6, 4).T]
    with pytest.raises(ValueError, match=r"adamw: params\[0\] is written in place and must be contiguous"):
        ops.adamw(grads=[torch.ones(4, 6)], **state, **NUMBERS)


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fake where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        weight = torch.empty(4, 6, device="cuda", dtype=torch.bfloat16)
        state = [torch.empty(4, 6, device="cuda") for _ in range(3)]
        step, norm = torch.zeros(1, dtype=torch.int64, device="cuda"), torch.zeros((), device="cuda")

        def call() -> torch.Tensor:
            return ops.adamw([weight], [weight], [state[0]], [state[1]], step, masters=[state[2]], grad_norm=norm,
                             max_grad_norm=1.0, **NUMBERS)

        if "adamw" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="adamw: has no CUDA kernel"):
                call()
            return
        applied = call()
        assert (applied.device.type, applied.dtype, tuple(applied.shape)) == ("cuda", torch.bool, (1,))
