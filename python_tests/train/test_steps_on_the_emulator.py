"""A training step of every stage, and a PPO run, through the emulated CUDA kernels equal the CPU's.

Heads are 16 wide here, which attention serves by its general kernels; test_tensor_core_steps.py has the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel, scores_at_last
from instructgpt_fast.ops import ranking_loss
from instructgpt_fast.rlhf.ptx import ptx_backward
from instructgpt_fast.rlhf.update import Experience, PpoObjective, ppo_backward
from instructgpt_fast.train import language_model
from python_tests.accuracy import compare

from .judged_steps import Models, flat, gradients, judged_step, needs_the_emulator, oracles_in_place_of_ops
from .ppo_runs import World

SHAPE = GPTConfig(vocab_size=300, n_positions=32, n_layer=2, n_head=2, d_model=32, band_width=8)


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


STAGES = (pretrain, sft, reward, ppo, ppo_ptx)


@needs_the_emulator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.__name__)
def test_a_step_of_every_stage(stage: Callable[[Models], None], dtype: torch.dtype) -> None:
    judged_step(fresh(dtype), stage)


@needs_the_emulator
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


@needs_the_emulator
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
