"""The transformer against transformers' GPT-2, and its own shapes of the same computation against each other."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import GPT2LMHeadModel

from instructgpt_fast.model import GPT, GPTConfig

from ..accuracy import compare, same_bits
from .reference import SMALL, pack, plain_forward, random_gpt, transformers_gpt2

BANDED = dataclasses.replace(SMALL, n_layer=2, band_width=3)


def tokens_of(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_gpt()


@pytest.fixture(scope="module")
def judge(model: GPT) -> GPT2LMHeadModel:
    return transformers_gpt2(model)


def test_logits_equal_transformers(model: GPT, judge: GPT2LMHeadModel) -> None:
    tokens = tokens_of(3, 40)
    with torch.no_grad():
        ours = model.logits(model(tokens))
        theirs = judge(tokens).logits
        truth = judge.double()(tokens).logits
        judge.float()
    compare(ours, truth, theirs)


def test_gradients_equal_transformers(model: GPT, judge: GPT2LMHeadModel) -> None:
    tokens = tokens_of(2, 17)
    weight = torch.randn(2, 17, SMALL.vocab_size, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    (model.logits(model(tokens)) * weight).mean().backward()
    gradients = {}
    for dtype in (torch.float32, torch.float64):
        judge.to(dtype).zero_grad()
        (judge(tokens).logits * weight.to(dtype)).mean().backward()
        gradients[dtype] = {name: p.grad.clone() for name, p in judge.named_parameters() if p.grad is not None}
    judge.float()
    for name, parameter in model.named_parameters():
        linear = parameter.dim() == 2 and name.startswith("h.")
        yardstick, truth = (gradients[d][f"transformer.{name}"] for d in (torch.float32, torch.float64))
        assert parameter.grad is not None
        # The gradient of the key bias is zero by mathematics (softmax ignores a shift shared by all keys), so its
        # third of this vector is pure rounding noise whose size says nothing; the other two thirds are judged.
        if name.endswith("c_attn.bias"):
            keys = slice(SMALL.d_model, 2 * SMALL.d_model)
            assert parameter.grad[keys].abs().max() < 1e-6 * parameter.grad.abs().max() + 1e-8
            kept = torch.ones(3 * SMALL.d_model, dtype=torch.bool)
            kept[keys] = False
            compare(parameter.grad[kept], truth[kept], yardstick[kept], name=name)
            continue
        compare(
            parameter.grad, truth.t() if linear else truth, yardstick.t() if linear else yardstick, name=name,
            rms_factor=2.0, max_factor=4.0,
            why_looser="both are long chains of f32 sums in different orders, and either may be the luckier one",
        )


def test_packed_equals_dense(model: GPT) -> None:
    rows = [tokens_of(n, seed=n) for n in (1, 40, 7, 23)]
    packed, cu_seqlens = pack(rows)
    with torch.no_grad():
        together = model(packed, cu_seqlens=cu_seqlens)
        alone = torch.cat([model(row[None])[0] for row in rows])
        truth = torch.cat([transformers_gpt2(model).double().transformer(row[None])[0][0] for row in rows])
    compare(together, truth, alone)


def test_banded_model_equals_plain_torch() -> None:
    model = random_gpt(BANDED)
    tokens = tokens_of(2, 40)
    with torch.no_grad():
        compare(model(tokens), plain_forward(model, tokens), plain_forward(model, tokens, torch.float32))


def test_an_empty_sequence_changes_nothing(model: GPT) -> None:
    rows = [tokens_of(5), tokens_of(0), tokens_of(9)]
    packed, cu_seqlens = pack(rows)
    without, boundaries = pack([rows[0], rows[2]])
    with torch.no_grad():
        assert same_bits(model(packed, cu_seqlens=cu_seqlens), model(without, cu_seqlens=boundaries))


def test_given_position_ids_are_used(model: GPT) -> None:
    tokens = tokens_of(2, 6)
    counted = torch.arange(6).expand(2, 6)
    with torch.no_grad():
        plain = model(tokens)
        assert same_bits(model(tokens, position_ids=counted), plain)
        assert not torch.allclose(model(tokens, position_ids=counted + 1), plain, atol=1e-3)


@pytest.mark.parametrize("packed", [False, True])
def test_banded_layers_see_only_their_band(packed: bool) -> None:
    """Both layers banded would carry information 2 * (3 - 1) tokens; a dense first layer carries it everywhere.

    So the band is seen on a model whose dense layer is silenced: its attention branch is multiplied by zero.
    """
    model = random_gpt(BANDED)
    tokens = tokens_of(1, 12)
    changed = tokens.clone()
    changed[0, 2] = (changed[0, 2] + 1) % SMALL.vocab_size

    def moved() -> list[bool]:
        boundaries = {"cu_seqlens": torch.tensor([0, 12], dtype=torch.int32)} if packed else {}
        with torch.no_grad():
            before, after = (model(t[0] if packed else t, **boundaries).view(12, -1) for t in (tokens, changed))
        return [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]

    assert moved() == [False] * 2 + [True] * 10, "the dense layer carries a change to every later token"
    with torch.no_grad():
        model.h[0].attn.c_proj.weight.zero_()
    assert moved() == [False] * 2 + [True] * 3 + [False] * 7, "the band is 3 tokens wide, the own one included"


def test_activation_checkpointing_changes_no_gradient() -> None:
    config = dataclasses.replace(SMALL, residual_dropout=0.1)
    model = random_gpt(config).train()
    tokens = tokens_of(2, 11)
    gradients = []
    for recompute in (False, True):
        model.activation_checkpointing = recompute
        model.zero_grad()
        torch.manual_seed(5)
        model(tokens).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(model.parameters()))
    assert all(same_bits(a, b) for a, b in zip(*gradients, strict=True))


def test_activation_checkpointing_keeps_less() -> None:
    model = random_gpt().train()
    tokens = tokens_of(2, 11)

    def saved_numbers() -> int:
        count = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model(tokens).sum()
        return count

    plain = saved_numbers()
    model.activation_checkpointing = True
    assert saved_numbers() < plain / 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_transformers(model: GPT, judge: GPT2LMHeadModel, dtype: torch.dtype) -> None:
    half = GPT(SMALL, dtype=dtype)
    half.load_state_dict(model.state_dict())
    # The truth is the float64 model of the same rounded weights.
    rounded = GPT(SMALL)
    rounded.load_state_dict(half.float().state_dict())
    half.to(dtype)
    theirs = transformers_gpt2(rounded).to(dtype)
    tokens = tokens_of(2, 30)
    with torch.no_grad():
        ours = half(tokens)
        yardstick = theirs.transformer(tokens)[0]
        truth = transformers_gpt2(rounded).double().transformer(tokens)[0]
    assert ours.dtype == dtype
    compare(ours, truth, yardstick, max_factor=3.0, why_looser="a maximum over few elements of a long half chain")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains(dtype: torch.dtype) -> None:
    model = random_gpt().to(dtype).train()
    model(tokens_of(2, 9)).float().square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype, name
        assert torch.isfinite(parameter.grad).all(), name


def test_dropout_works_in_training_only() -> None:
    model = random_gpt(dataclasses.replace(SMALL, residual_dropout=0.2))
    plain = random_gpt()
    tokens = tokens_of(1, 20)
    with torch.no_grad():
        assert same_bits(model.eval()(tokens), plain.eval()(tokens))
        model.train()
        torch.manual_seed(3)
        first, second = model(tokens), model(tokens)
        torch.manual_seed(3)
        assert same_bits(model(tokens), first)
    assert not torch.equal(first, second)


def test_fresh_weights_follow_gpt2() -> None:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=500, n_positions=64, n_layer=8, n_head=4, d_model=128)
    model = GPT(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name
        else:
            expected = 0.02 / (2 * 8) ** 0.5 if name.endswith("c_proj.weight") else 0.02
            # The standard deviation of n draws is known to 1 / sqrt(2 n): five of these for about 30 tensors.
            assert parameter.std().item() == pytest.approx(expected, rel=5 / (2 * parameter.numel()) ** 0.5), name
    assert model.lm_weight is model.wte.weight


def test_names_follow_gpt2(model: GPT, judge: GPT2LMHeadModel) -> None:
    names = {name.removeprefix("transformer.") for name in judge.state_dict() if name != "lm_head.weight"}
    assert set(model.state_dict()) == names


@pytest.mark.parametrize(
    ("tokens", "boundaries", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), None, r"\[B, T\]"),
        (torch.zeros(1, 4, dtype=torch.int64), [0, 4], r"\[N\] with cu_seqlens"),
        (torch.zeros(1, 4, dtype=torch.int32), None, "int64"),
        (torch.zeros(1, 49, dtype=torch.int64), None, "context of 48 tokens, got 49"),
        (torch.zeros(60, dtype=torch.int64), [0, 10, 60], "context of 48 tokens, got 50"),
    ],
)
def test_errors(model: GPT, tokens: torch.Tensor, boundaries: list[int] | None, message: str) -> None:
    cu_seqlens = None if boundaries is None else torch.tensor(boundaries, dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        model(tokens, cu_seqlens=cu_seqlens)
