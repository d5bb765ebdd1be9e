"""A training step of every stage, and a PPO run, through the emulated CUDA kernels equal the CPU's.

A step is computed three times from one set of weights: in float64 with the oracles in place of the ops (the truth),
by the CPU executions (the yardstick) and by the CUDA kernels under the emulator (what is judged).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instructgpt_fast import ops, simt
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel, scores_at_last
from instructgpt_fast.ops import adamw_oracle, ranking_loss
from instructgpt_fast.optim import AdamW
from instructgpt_fast.rlhf.ptx import ptx_backward
from instructgpt_fast.rlhf.update import Experience, PpoObjective, ppo_backward
from instructgpt_fast.train import language_model
from python_tests.accuracy import compare

from .ppo_runs import World

SHAPE = GPTConfig(vocab_size=300, n_positions=32, n_layer=2, n_head=2, d_model=32, band_width=8)
LR, DECAY, BETAS, EPS = 1e-3, 0.1, (0.9, 0.95), 1e-8
Models = dict[str, nn.Module]


def fresh(dtype: torch.dtype) -> Models:
    torch.manual_seed(0)
    policy, value = GPT(SHAPE), ScalarModel(SHAPE)
    with torch.no_grad():
        policy.wte.weight.mul_(4.0)  # so that the distribution is not nearly uniform
    return {"policy": policy.to(dtype), "value": value.to(dtype)}


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, SHAPE.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def pretrain(models: Models) -> None:
    batch = {"tokens": tokens(2, 24)}
    count = language_model.count_targets(batch)
    (language_model.lm_loss(models["policy"], batch) / count).backward()


def sft(models: Models) -> None:
    """Packed demonstrations, one of them empty, with prompts that do not count."""
    cu_seqlens = torch.tensor([0, 11, 11, 30, 37], dtype=torch.int32)
    mask = torch.rand(37, generator=torch.Generator().manual_seed(2)) < 0.6
    batch = {"tokens": tokens(37), "cu_seqlens": cu_seqlens, "loss_mask": mask}
    (language_model.lm_loss(models["policy"], batch) / language_model.count_targets(batch)).backward()


def reward(models: Models) -> None:
    """Two prompts with four and three answers, one tie."""
    cu_seqlens = torch.arange(0, 8 * 7, 7, dtype=torch.int32)
    scores = scores_at_last(models["value"](tokens(49), cu_seqlens=cu_seqlens), cu_seqlens)
    ranks, offsets = torch.tensor([1, 2, 2, 3, 3, 1, 2]), torch.tensor([0, 4, 7])
    (ranking_loss(scores, ranks, offsets).loss / 2).backward()


def ppo(models: Models) -> None:
    _ppo(models)


def ppo_ptx(models: Models) -> None:
    _ppo(models)
    ptx_backward(models["policy"], tokens(2, 16, seed=5), ptx_coef=27.8, micro_batch_size=2)


def _ppo(models: Models) -> None:
    responses = [tokens(n, seed=10 + n).tolist() for n in (9, 4, 6)]
    mask = torch.arange(9)[None] < torch.tensor([[9], [4], [6]])
    drawn = torch.Generator().manual_seed(3)

    def noise(level: float, around: float = 0.0) -> Tensor:
        values = torch.where(mask, around + level * torch.randn(3, 9, generator=drawn), 0.0)
        return values.to(next(models["value"].parameters()).dtype) if _is_double(models) else values

    experience = Experience(
        [[5, 6, 7], [8], [9, 10]], responses, mask, old_logprobs=noise(0.3, -5.7), ref_logprobs=noise(0.3, -5.7),
        old_values=noise(0.5), advantages=noise(1.0), returns=noise(1.0),
    )
    objective = PpoObjective(cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, temperature=0.9, entropy_coef=0.01)
    ppo_backward(models["policy"], models["value"], experience, objective, denominator=float(mask.sum()))


def _is_double(models: Models) -> bool:
    return next(models["policy"].parameters()).dtype == torch.float64


@contextmanager
def oracles_in_place_of_ops() -> Iterator[None]:
    """Every reference to an op in the package leads to its oracle, and `.float()` leaves float64 as it is."""
    patch = pytest.MonkeyPatch()
    swapped = {name: getattr(ops, f"{name}_oracle") for name in ops.__all__ if f"{name}_oracle" in ops.__all__}
    here = sys.modules[__name__]
    modules = [m for n, m in sys.modules.items() if n.startswith("instructgpt_fast.") and "._" not in n] + [here]
    for module in modules:
        for name, oracle in swapped.items():
            if getattr(module, name, None) is getattr(ops, name) and module is not ops:
                patch.setattr(module, name, oracle)
    for name, oracle in swapped.items():
        patch.setattr(ops, name, oracle)
    narrow = torch.Tensor.float
    patch.setattr(torch.Tensor, "float", lambda t: t if t.dtype == torch.float64 else narrow(t))
    try:
        yield
    finally:
        patch.undo()


def gradients(models: Models, stage: Callable[[Models], None], around: AbstractContextManager[object]) -> Models:
    own = copy.deepcopy(models)
    with around:
        stage(own)
    return own


def flat(models: Models, what: Callable[[nn.Parameter], Tensor | None], truths: Models) -> Tensor:
    """All tensors in one row, each divided by its size in float64, so that none is lost behind a larger one.

    A tensor that is nothing but cancellation (a bias that shifts all scores alike has the gradient 0) is left out.
    The truth stays float64; the others become float32, whose ulp the comparer then grants.
    """
    pairs = [
        (what(parameter), what(truth))
        for name, module in models.items()
        for parameter, truth in zip(module.parameters(), truths[name].parameters(), strict=True)
    ]
    found = [(v.detach().double(), truth.double()) for v, truth in pairs if v is not None and truth is not None]
    sizes = [truth.square().mean().sqrt() for _, truth in found]
    parts = zip(found, sizes, strict=True)
    row = torch.cat([(v / size).reshape(-1) for (v, _), size in parts if size > 1e-9 * max(sizes)])
    return row if models is truths else row.float()


STAGES = (pretrain, sft, reward, ppo, ppo_ptx)


@pytest.mark.skipif(not simt.available(), reason="built without the emulator: INSTRUCTGPT_FAST_SIMT=ON builds it")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.__name__)
def test_a_step_of_every_stage(stage: Callable[[Models], None], dtype: torch.dtype) -> None:
    models = fresh(dtype)
    double = {name: copy.deepcopy(module).double() for name, module in models.items()}
    truth = gradients(double, stage, oracles_in_place_of_ops())
    on_cpu = gradients(models, stage, nullcontext())
    with simt.executing(schedule="random", seed=7, accounting=True) as run:
        emulated = gradients(models, stage, nullcontext())
        # Adam's first step divides a gradient by its own size and so turns rounding into whole steps where there is
        # nothing else: both steps start from the same gradients, which the line above has made and the next one judges.
        stepped = with_gradients(on_cpu, dtype)
        step(stepped)
    assert run.launches, "no kernel ran"
    assert not run.not_emulated
    compare(*(flat(m, lambda p: p.grad, truth) for m in (emulated, truth, on_cpu)), name=f"{stage.__name__}: gradients")
    truth = with_gradients(on_cpu, torch.float64)
    oracle_step(truth)
    step(on_cpu)
    compare(*(flat(m, moved, truth) for m in (stepped, truth, on_cpu)), name=f"{stage.__name__}: weights")


def moved(parameter: nn.Parameter) -> Tensor | None:
    return None if parameter.grad is None else parameter.data


def with_gradients(models: Models, dtype: torch.dtype) -> Models:
    """A copy of weights and gradients, in a dtype that holds them."""
    own = {name: copy.deepcopy(module).to(dtype) for name, module in models.items()}
    for name, module in models.items():
        for parameter, source in zip(own[name].parameters(), module.parameters(), strict=True):
            parameter.grad = None if source.grad is None else source.grad.to(dtype)
    return own


def step(models: Models) -> None:
    for module in models.values():
        if any(p.grad is not None for p in module.parameters()):
            AdamW(module, betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=1.0).step(LR)


def oracle_step(models: Models) -> None:
    with torch.no_grad():
        for module in models.values():
            active = [p for p in module.parameters() if p.grad is not None]
            if not active:
                continue
            grads = [p.grad for p in active if p.grad is not None]
            norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
            zeros = [torch.zeros_like(p) for p in active]
            adamw_oracle(
                [p.data for p in active], grads, zeros, [z.clone() for z in zeros], torch.zeros(1, dtype=torch.int64),
                lr=LR, betas=BETAS, eps=EPS, weight_decay=[DECAY if p.dim() >= 2 else 0.0 for p in active],
                grad_norm=norm, max_grad_norm=1.0,
            )


@pytest.mark.skipif(not simt.available(), reason="built without the emulator: INSTRUCTGPT_FAST_SIMT=ON builds it")
def test_a_broken_kernel_is_found_in_a_step() -> None:
    """The judgement can fail: layer norm's first load reads its neighbour."""
    models = fresh(torch.float32)
    truth = gradients({n: copy.deepcopy(m).double() for n, m in models.items()}, sft, oracles_in_place_of_ops())
    on_cpu = gradients(models, sft, nullcontext())
    with simt.executing(sites=True) as run:
        gradients(models, sft, nullcontext())
    place = next(s.where for s in run.sites_of("shift_load") if "layer_norm_forward" in s.where)
    with simt.executing(mutation=simt.Mutation("shift_load", place)):
        broken = gradients(models, sft, nullcontext())
    with pytest.raises(AssertionError, match="error"):
        compare(*(flat(m, lambda p: p.grad, truth) for m in (broken, truth, on_cpu)))


@pytest.mark.skipif(not simt.available(), reason="built without the emulator: INSTRUCTGPT_FAST_SIMT=ON builds it")
def test_a_whole_ppo_run_by_the_kernels(tmp_path: Path) -> None:
    """Rollout, scoring, both updates: the same answers are drawn as on the CPU, and the same numbers are logged."""
    world = World(tmp_path)
    world.run("cpu", total_episodes=8)
    with simt.executing(schedule="random", seed=1) as run:
        world.run("kernels", total_episodes=8)
    assert not run.not_emulated
    (cpu,), (kernels,) = world.metrics("cpu"), world.metrics("kernels")
    for name in ("objective/kl", "objective/scores", "policy/approxkl_avg", "loss/value_avg", "val/ratio"):
        # Eight answers of a model of random weights: f32 rounding through two layers and one update of Adam.
        assert kernels[name] == pytest.approx(cpu[name], rel=1e-3, abs=1e-4), name
    assert kernels["val/response_length"] == cpu["val/response_length"]
