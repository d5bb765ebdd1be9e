"""Training steps and a rollout with heads 64 wide: attention runs by the kernels of tensor cores, of sm_80 and sm_90.

Which kernels ran is read from the launches; what they made is judged as every step is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel, inference
from instructgpt_fast.rlhf.batch import pack
from instructgpt_fast.rlhf.rollout import collect, episode_seeds
from instructgpt_fast.rlhf.scoring import response_logprobs
from instructgpt_fast.rlhf.update import Experience, PpoObjective, ppo_backward
from instructgpt_fast.train.language_model import count_targets, lm_loss
from instructgpt_fast.train.reward import Seen, comparison_loss
from python_tests.accuracy import compare

from .judged_steps import Models, flat, gradients, judged_step, needs_the_emulator, oracles_in_place_of_ops

# Layer 0 sees all, layer 1 a band below a tile of keys.
SHAPE = GPTConfig(vocab_size=60, n_positions=96, n_layer=2, n_head=1, d_model=64, d_ff=64, band_width=24)
PATHS = {80: "attention_mma", 90: "attention_hopper"}


def fresh() -> Models:
    torch.manual_seed(0)
    policy, value = GPT(SHAPE), ScalarModel(SHAPE)
    with torch.no_grad():
        policy.wte.weight.mul_(4.0)  # so that the distribution is not nearly uniform
    return {"policy": policy.bfloat16(), "value": value.bfloat16()}


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, SHAPE.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def pretrain(models: Models) -> None:
    """Two tiles of keys, the second cut off by the end of the row."""
    batch = {"tokens": tokens(2, 75)}
    (lm_loss(models["policy"], batch) / count_targets(batch)).backward()


def sft(models: Models) -> None:
    """Packed demonstrations, one of them empty, one longer than a tile, with prompts that do not count."""
    cu_seqlens = torch.tensor([0, 11, 11, 81, 90], dtype=torch.int32)
    mask = torch.rand(90, generator=torch.Generator().manual_seed(2)) < 0.6
    batch = {"tokens": tokens(90), "cu_seqlens": cu_seqlens, "loss_mask": mask}
    (lm_loss(models["policy"], batch) / count_targets(batch)).backward()


def reward(models: Models) -> None:
    """Two prompts with three and two answers."""
    batch = {
        "tokens": tokens(95), "cu_seqlens": torch.tensor([0, 7, 23, 40, 52, 95], dtype=torch.int32),
        "ranks": torch.tensor([1, 2, 3, 2, 1]), "group_offsets": torch.tensor([0, 3, 5]),
    }
    (comparison_loss(models["value"], batch, Seen()) / 2).backward()


def ppo(models: Models) -> None:
    lengths = torch.tensor([70, 9, 15])
    mask = torch.arange(70)[None] < lengths[:, None]
    drawn = torch.Generator().manual_seed(3)

    def noise(level: float, around: float = 0.0) -> Tensor:
        values = torch.where(mask, around + level * torch.randn(mask.shape, generator=drawn), 0.0)
        return values.double() if next(models["value"].parameters()).dtype == torch.float64 else values

    experience = Experience(
        [[5, 6, 7], [8], [9, 10]], [tokens(n, seed=10 + n).tolist() for n in lengths.tolist()], mask,
        old_logprobs=noise(0.3, -4.1), ref_logprobs=noise(0.3, -4.1), old_values=noise(0.5), advantages=noise(1.0),
        returns=noise(1.0),
    )
    objective = PpoObjective(cliprange=0.2, cliprange_value=0.2, vf_coef=0.1, temperature=0.9, entropy_coef=0.01)
    ppo_backward(models["policy"], models["value"], experience, objective, denominator=float(mask.sum()))


def kernels_of(run: simt.Run, op: str) -> set[str]:
    return {launch.kernel for launch in run.launches if launch.op == op}


@needs_the_emulator
@pytest.mark.parametrize("architecture", PATHS)
@pytest.mark.parametrize("stage", [pretrain, sft, reward, ppo], ids=lambda s: s.__name__)
def test_a_step(stage: Callable[[Models], None], architecture: int) -> None:
    run = judged_step(fresh(), stage, architecture=architecture)
    path = PATHS[architecture]
    (forward,) = kernels_of(run, "attention")
    assert forward.startswith(f"{path}_forward")
    backward = {"attention_backward_prepare", f"{path}_backward_tiles", "attention_backward_finish"}
    assert kernels_of(run, "attention_backward") == backward
    calls = sum(launch.kernel == f"{path}_backward_tiles" for launch in run.launches)
    assert calls == (2 if stage is ppo else 1) * SHAPE.n_layer


@needs_the_emulator
@pytest.mark.parametrize("architecture", PATHS)
def test_a_broken_attention_kernel_is_found_in_a_step(architecture: int) -> None:
    """The judgement can fail: one of the forward kernel's stores goes to a neighbour, and gradients are wrong."""
    models = {"policy": fresh()["policy"]}
    with simt.executing(architecture=architecture, sites=True) as run:
        gradients(models, pretrain, nullcontext())
    place = next(s.where for s in run.sites_of("shift_store") if f"{PATHS[architecture]}_forward" in s.where)
    truth = gradients({"policy": copy.deepcopy(models["policy"]).double()}, pretrain, oracles_in_place_of_ops())
    on_cpu = gradients(models, pretrain, nullcontext())
    with simt.executing(architecture=architecture, mutation=simt.Mutation("shift_store", place)) as run:
        broken = gradients(models, pretrain, nullcontext())
    assert run.mutation_applied
    with pytest.raises(AssertionError, match=r"error|NaN"):
        compare(*(flat(m, lambda p: p.grad, truth) for m in (broken, truth, on_cpu)))


@needs_the_emulator
@pytest.mark.parametrize("architecture", PATHS)
def test_a_rollout(architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts by the kernels of tensor cores, answers by those of decoding; judged are the log-probabilities noted.

    The truth about the tokens drawn is the full forward pass in float64, the yardstick the CPU's in bfloat16.
    """
    monkeypatch.setattr(inference, "prefills_exactly", lambda device: False)  # as on a GPU
    policy = fresh()["policy"]
    prompts = [tokens(n, seed=n).tolist() for n in (70, 3, 17, 40, 1, 66, 9, 30)]
    options = SamplingConfig(max_new_tokens=12, temperature=0.9)
    with simt.executing(schedule="random", seed=5, accounting=True, architecture=architecture) as run:
        rollout = collect(policy, prompts, options, eos_id=0, seeds=episode_seeds(3, 0, len(prompts)), batch_size=5)
    assert not run.not_emulated
    (prefill,) = kernels_of(run, "attention")
    assert prefill.startswith(f"{PATHS[architecture]}_forward")
    assert kernels_of(run, "attention_decode") == {"attention_decode_mma"}
    batch = pack(rollout.prompts, rollout.responses)
    with torch.no_grad():
        on_cpu, _ = response_logprobs(policy, batch, temperature=0.9)
        with oracles_in_place_of_ops():
            truth, _ = response_logprobs(copy.deepcopy(policy).double(), batch, temperature=0.9)
    compare(rollout.logprobs[rollout.loss_mask], truth, on_cpu, name="log-probabilities")
