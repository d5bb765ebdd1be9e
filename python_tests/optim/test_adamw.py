"""AdamW against torch.optim.AdamW and against its formula written out in float64."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from instructgpt_fast import simt
from instructgpt_fast.errors import CheckpointError, ConfigError, TrainingError
from instructgpt_fast.optim import AdamW

from ..accuracy import same_bits

SHAPES = {"matrix": (37, 11), "bias": (11,), "other": (3, 5, 2), "norm": (5,)}
BETAS, EPS, DECAY, LR = (0.9, 0.95), 1e-8, 0.1, 1e-2


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in SHAPES.items()}


def gradients(step: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    # Sizes over six orders, so that eps and the bias correction both matter somewhere.
    scale = 10.0 ** -(step % 3)
    return {
        name: (torch.randn(shape, generator=generator) * scale * 10.0 ** -(3 * i)).to(dtype)
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def give(named: dict[str, nn.Parameter], grads: dict[str, Tensor], factor: float = 1.0) -> None:
    for name, parameter in named.items():
        parameter.grad = grads[name] * factor


def formula64(
    start: dict[str, Tensor],
    grads_of: Callable[[int], dict[str, Tensor]],
    steps: int,
    *,
    placement: str,
    max_norm: float | None,
    ema_decay: float,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and their average after some steps, each line as the papers write it."""
    b1, b2 = BETAS
    theta = {name: value.double().clone() for name, value in start.items()}
    average = {name: value.clone() for name, value in theta.items()}
    m = {name: torch.zeros_like(value) for name, value in theta.items()}
    v = {name: torch.zeros_like(value) for name, value in theta.items()}
    for t in range(1, steps + 1):
        grads = {name: g.double() for name, g in grads_of(t).items()}
        norm = torch.cat([g.flatten() for g in grads.values()]).norm()
        clip = 1.0 if max_norm is None else min(1.0, max_norm / (norm.item() + 1e-6))
        for name, g in grads.items():
            g = g * clip
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g * g
            if placement == "torch":
                update = (m[name] / (1 - b1**t)) / ((v[name] / (1 - b2**t)).sqrt() + EPS)
            else:
                update = ((1 - b2**t) ** 0.5 / (1 - b1**t)) * m[name] / (v[name].sqrt() + EPS)
            decay = DECAY if g.dim() >= 2 else 0.0
            theta[name] = theta[name] - LR * update - LR * decay * theta[name]
            average[name] = ema_decay * average[name] + (1 - ema_decay) * theta[name]
    return theta, average


def test_equals_torch() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(ours.items(), betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=None)
    matrices = [p for p in theirs.values() if p.dim() >= 2]
    vectors = [p for p in theirs.values() if p.dim() < 2]
    judge = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=LR, betas=BETAS, eps=EPS,
    )
    for step in range(8):
        give(ours, gradients(step))
        give(theirs, gradients(step))
        optimizer.step(LR)
        judge.step()
    for name in SHAPES:
        # Both round some ten f32 operations a step: a few 1e-7 of a weight of size 1.
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("placement", ["torch", "tensorflow"])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_equals_the_formula(placement: str, max_norm: float | None) -> None:
    named = parameters()
    start = {name: p.detach().clone() for name, p in named.items()}
    optimizer = AdamW(
        named.items(), betas=BETAS, eps=EPS, weight_decay=DECAY, eps_placement=placement, max_grad_norm=max_norm,
        ema_decay=0.9,
    )
    for step in range(1, 7):
        # Gradients summed over 4 parts and scaled back are the same gradients.
        give(named, gradients(step), factor=4.0)
        report = optimizer.step(LR, grad_scale=0.25)
        flat = torch.cat([g.double().flatten() for g in gradients(step).values()])
        assert report.applied
        # A f32 sum of 600 squares: relative error at most some 1e-6.
        assert report.grad_norm == pytest.approx(flat.norm().item(), rel=1e-5)
    theta, average = formula64(start, gradients, 6, placement=placement, max_norm=max_norm, ema_decay=0.9)
    assert optimizer.steps_taken == 6
    for name, parameter in named.items():
        # As above; the smallest gradients divide two f32 moments near 1e-13, which keeps their relative error.
        torch.testing.assert_close(parameter.detach().double(), theta[name], rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(optimizer.ema_state_dict()[name].double(), average[name], rtol=2e-6, atol=2e-6)


def test_placements_differ_where_gradients_are_small() -> None:
    moved = {}
    for placement in ("torch", "tensorflow"):
        named = {"weight": nn.Parameter(torch.zeros(1))}
        optimizer = AdamW(named.items(), eps=1e-5, eps_placement=placement, max_grad_norm=None, betas=(0.9, 0.999))
        named["weight"].grad = torch.full((1,), 1e-5)
        optimizer.step(1.0)
        moved[placement] = -named["weight"].item()
    # By hand, step 1, g = eps = 1e-5: torch g / (g + eps) = 1/2; tensorflow scales eps by 1 / sqrt(0.001).
    assert moved["torch"] == pytest.approx(0.5, rel=1e-5)
    assert moved["tensorflow"] == pytest.approx(1 / (1 + 1000**0.5), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_f32_masters(dtype: torch.dtype) -> None:
    named = parameters(dtype)
    start = {name: p.detach().float().clone() for name, p in named.items()}
    optimizer = AdamW(named.items(), betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=None, ema_decay=0.9)

    def halved(step: int) -> dict[str, Tensor]:
        return gradients(step, dtype)

    for step in range(1, 7):
        give(named, halved(step))
        optimizer.step(LR)
    theta, average = formula64(start, halved, 6, placement="torch", max_norm=None, ema_decay=0.9)
    state = optimizer.state_dict()
    for name, parameter in named.items():
        assert state[f"master.{name}"].dtype == state[f"exp_avg.{name}"].dtype == torch.float32
        # The masters follow the f32 path; the parameter is their rounding, exactly.
        torch.testing.assert_close(state[f"master.{name}"].double(), theta[name], rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(state[f"ema.{name}"].double(), average[name], rtol=2e-6, atol=2e-6)
        assert same_bits(parameter.detach(), state[f"master.{name}"].to(dtype))


def test_small_updates_survive_in_half_precision() -> None:
    named = {"weight": nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))}
    optimizer = AdamW(named.items(), max_grad_norm=None)
    for _ in range(100):
        named["weight"].grad = torch.ones(4, 4, dtype=torch.bfloat16)
        optimizer.step(1e-4)
    # Each update of 1e-4 is far below half a bf16 step at 1 (2^-9); together they are 0.01.
    assert named["weight"].float().mean().item() == pytest.approx(0.99, abs=2**-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    named = parameters()
    optimizer = AdamW(named.items(), weight_decay=DECAY, ema_decay=0.9)
    give(named, gradients(1))
    optimizer.step(LR)
    before = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    weights = {name: p.detach().clone() for name, p in named.items()}
    give(named, gradients(2))
    named["bias"].grad[3] = bad
    report = optimizer.step(LR)
    assert not report.applied
    assert not report.grad_norm < float("inf")
    assert all(same_bits(tensor, before[name]) for name, tensor in optimizer.state_dict().items())
    assert all(same_bits(p.detach(), weights[name]) for name, p in named.items())
    give(named, gradients(2))
    assert optimizer.step(LR).applied


class Calls(TorchDispatchMode):
    """Names of all operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_a_step_is_one_call_that_waits_for_nothing() -> None:
    """On a GPU reading a number waits for the device; so nothing is read before somebody asks."""
    named = parameters()
    optimizer = AdamW(named.items(), weight_decay=DECAY, ema_decay=0.9)
    give(named, gradients(1))
    with Calls() as calls:
        report = optimizer.step(LR)
    work = sorted(name for name in calls.names if name != "aten::detach")  # a view, nothing on the device
    assert work == ["instructgpt_fast::adamw", "instructgpt_fast::grad_norm"]
    with Calls() as calls:
        assert report.applied and report.grad_norm > 0
    assert calls.names.count("aten::_local_scalar_dense") == 2


@pytest.mark.parametrize("bad", [False, True])
def test_parameters_of_two_dtypes_share_the_norm_and_the_count(bad: bool) -> None:
    named = parameters()
    named["matrix"] = nn.Parameter(named["matrix"].detach().bfloat16())
    optimizer = AdamW(named.items(), max_grad_norm=0.5)
    for step in range(3):
        grads = gradients(step)
        give(named, {name: g.to(named[name].dtype) for name, g in grads.items()})
        if bad:
            named["bias"].grad[0] = float("inf")
        before = {name: p.detach().clone() for name, p in named.items()}
        report = optimizer.step(LR)
        assert report.applied != bad
        assert all(same_bits(p.detach(), before[name]) == bad for name, p in named.items())
    assert optimizer.steps_taken == (0 if bad else 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cuda_kernels_follow_the_cpu(dtype: torch.dtype) -> None:
    """Some steps by the emulated kernels, with clipping and an average, beside the same steps on the CPU."""
    if not simt.available():
        pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")
    states = []
    for execution in (contextlib.nullcontext(), simt.executing(schedule="random", seed=3)):
        named = parameters(dtype)
        optimizer = AdamW(named.items(), weight_decay=DECAY, ema_decay=0.9, max_grad_norm=0.05)
        with execution:
            for step in range(4):
                give(named, gradients(step, dtype))
                assert optimizer.step(LR).applied
        assert optimizer.steps_taken == 4
        states.append({name: tensor.double() for name, tensor in optimizer.state_dict().items()})
    for name, tensor in states[0].items():
        # A few roundings of f32 a step, of numbers up to 4.
        torch.testing.assert_close(states[1][name], tensor, rtol=2e-6, atol=1e-6)


def test_one_dimensional_parameters_are_not_decayed() -> None:
    named = {"matrix": nn.Parameter(torch.ones(2, 2)), "bias": nn.Parameter(torch.ones(2))}
    optimizer = AdamW(named.items(), weight_decay=0.5)
    give(named, {name: torch.zeros_like(p) for name, p in named.items()})
    optimizer.step(0.1)
    assert torch.equal(named["bias"].detach(), torch.ones(2))
    # 1 - lr * decay, in f32.
    torch.testing.assert_close(named["matrix"].detach(), torch.full((2, 2), 0.95), rtol=1e-6, atol=0.0)


def test_frozen_and_unused_parameters_are_left_alone() -> None:
    named = parameters()
    named["other"].requires_grad_(False)
    optimizer = AdamW(named.items(), weight_decay=DECAY)
    before = {name: p.detach().clone() for name, p in named.items()}
    give({name: named[name] for name in ("matrix", "norm")}, gradients(1))
    optimizer.step(LR)
    assert [name for name, p in named.items() if not same_bits(p.detach(), before[name])] == ["matrix", "norm"]
    assert not any("other" in name for name in optimizer.state_dict())
    optimizer.zero_grad()
    assert all(p.grad is None for p in named.values())
    with pytest.raises(TrainingError, match="needs gradients"):
        optimizer.step(LR)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_restored_state_continues_bit_for_bit(dtype: torch.dtype) -> None:
    def run(steps: range, named: dict[str, nn.Parameter], optimizer: AdamW) -> None:
        for step in steps:
            give(named, gradients(step, dtype))
            optimizer.step(LR)

    def make(named: dict[str, nn.Parameter]) -> AdamW:
        return AdamW(named.items(), weight_decay=DECAY, ema_decay=0.9)

    whole = parameters(dtype)
    through = make(whole)
    run(range(3), whole, through)
    saved = {name: tensor.clone() for name, tensor in through.state_dict().items()}
    resumed = {name: nn.Parameter(p.detach().clone()) for name, p in whole.items()}
    run(range(3, 6), whole, through)
    second = make(resumed)
    second.load_state_dict(saved)
    run(range(3, 6), resumed, second)
    assert all(same_bits(whole[name].detach(), resumed[name].detach()) for name in SHAPES)
    state = second.state_dict()
    assert all(same_bits(tensor, state[name]) for name, tensor in through.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swap_ema(dtype: torch.dtype) -> None:
    model = nn.Linear(4, 3).to(dtype)
    optimizer = AdamW(model, ema_decay=0.5)
    for _ in range(3):
        model(torch.randn(2, 4, dtype=dtype)).float().square().sum().backward()
        optimizer.step(0.1)
        optimizer.zero_grad()
    own = model.weight.detach().clone()
    average = optimizer.ema_state_dict()["weight"].to(dtype)
    assert not torch.equal(own, average)
    with optimizer.swap_ema():
        assert same_bits(model.weight.detach(), average)
    assert same_bits(model.weight.detach(), own)
    with pytest.raises(RuntimeError, match="inside"), optimizer.swap_ema():
        raise RuntimeError("inside")
    assert same_bits(model.weight.detach(), own)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"eps_placement": "inside"}, "'torch' or 'tensorflow', got 'inside'"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdamW(nn.Linear(2, 2), **options)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="requires a gradient"):
        AdamW([])
    optimizer = AdamW(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="ema_decay"):
        optimizer.ema_state_dict()
    with pytest.raises(CheckpointError, match=r"1 missing \['step'\]"):
        optimizer.load_state_dict({name: t for name, t in optimizer.state_dict().items() if name != "step"})
    with pytest.raises(CheckpointError, match=r"exp_avg\.weight must be"):
        optimizer.load_state_dict({**optimizer.state_dict(), "exp_avg.weight": torch.zeros(3)})
