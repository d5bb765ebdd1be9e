"""Micro-batches of any size give the gradient of the one large batch, and that of an independent float64 formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instructgpt_fast.evaluate import RankedAnswers
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.tokenizer import Encoded
from instructgpt_fast.train import PretrainConfig, SftConfig
from instructgpt_fast.train import pretrain as pretrain_stage
from instructgpt_fast.train import reward as reward_stage
from instructgpt_fast.train import sft as sft_stage
from instructgpt_fast.train.loop import Run
from instructgpt_fast.train.step import MicroBatch

from .material import CONTEXT, Material

# The same sums in another order: a few float32 roundings of the largest entry.
ROUNDING = 2e-6


def gradient(model: nn.Module, parts: list[MicroBatch]) -> tuple[float, Tensor]:
    model.zero_grad()
    total = 0.0
    for part in parts:
        loss = part.loss(part.tensors) * part.weight
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same(model: nn.Module, make: Callable[[int], list[MicroBatch]], sizes: tuple[int, ...]) -> float:
    whole_parts = make(max(sizes))
    assert len(whole_parts) == 1
    whole_loss, whole = gradient(model, whole_parts)
    for size in sizes:
        parts = make(size)
        loss, summed = gradient(model, parts)
        assert abs(loss - whole_loss) <= ROUNDING * abs(whole_loss)
        assert float((summed - whole).abs().max()) <= ROUNDING * float(whole.abs().max())
    return whole_loss


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("sft", sft_config(tmp_path, 1))


def sft_config(folder: Path, size: int) -> SftConfig:
    return SftConfig(
        init="", data="", output_dir=str(folder / "run"), per_device_train_batch_size=size, progress=False,
    )


def examples(material: Material, count: int) -> list[Encoded]:
    """Responses of very different length, so that a mean of means would be wrong."""
    return [
        material.tokenizer.encode_example(f"Say it {i}.", "cat " * (1 + i * i % 7), "dialogue") for i in range(count)
    ]


def response_loss(model: GPT, data: list[Encoded]) -> float:
    """Mean of -log p over all response tokens, in float64, one example at a time."""
    double = GPT(model.config).double()
    double.load_state_dict(model.state_dict())
    total, count = 0.0, 0
    for example in data:
        tokens = torch.tensor(example.tokens)
        with torch.no_grad():
            logprobs = (reference_hidden(double, tokens) @ double.wte.weight.T).log_softmax(-1)
        for place in range(1, len(tokens)):
            if example.loss_mask[place]:
                total -= float(logprobs[place - 1, tokens[place]])
                count += 1
    return total / count


def reference_hidden(model: GPT, tokens: Tensor) -> Tensor:
    """The transformer written out in plain torch at the model's dtype; [T, D]."""
    functional = nn.functional
    stream = model.wte.weight[tokens] + model.wpe.weight[: len(tokens)]
    heads, width = model.config.n_head, model.config.d_head
    for block in model.h:
        normed = functional.layer_norm(stream, stream.shape[-1:], block.ln_1.weight, block.ln_1.bias)
        q, k, v = block.attn.c_attn(normed).view(len(tokens), 3, heads, width).permute(1, 2, 0, 3)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        stream = stream + block.attn.c_proj(mixed.transpose(0, 1).reshape(stream.shape))
        normed = functional.layer_norm(stream, stream.shape[-1:], block.ln_2.weight, block.ln_2.bias)
        stream = stream + block.mlp.c_proj(functional.gelu(block.mlp.c_fc(normed), approximate="tanh"))
    return functional.layer_norm(stream, stream.shape[-1:], model.ln_f.weight, model.ln_f.bias)


def test_sft(material: Material, run: Run, tmp_path: Path) -> None:
    model, data = material.gpt(), examples(material, 9)
    loss = assert_same(
        model, lambda size: sft_stage.micro_batches(model, data, sft_config(tmp_path, size), run), (1, 2, 4, 9)
    )
    # float32 against float64 over two layers.
    assert loss == pytest.approx(response_loss(model, data), rel=1e-5)


def test_pretrain(material: Material, tmp_path: Path) -> None:
    model = material.gpt()
    windows = torch.randint(material.tokenizer.vocab_size, (7, CONTEXT), generator=torch.Generator().manual_seed(0))

    def make(size: int) -> list[MicroBatch]:
        config = PretrainConfig(data="", output_dir=str(tmp_path), per_device_train_batch_size=size)
        return pretrain_stage.micro_batches(model, windows, config)

    loss = assert_same(model, make, (1, 3, 7))
    everything = [Encoded(row.tolist(), [True] * CONTEXT) for row in windows]
    assert loss == pytest.approx(response_loss(model, everything), rel=1e-5)


def test_reward(material: Material, run: Run) -> None:
    torch.manual_seed(0)
    model = ScalarModel.from_gpt(material.gpt())
    generator = torch.Generator().manual_seed(0)
    items = []
    for k in (4, 9, 5, 2, 7):
        lengths = torch.randint(3, 12, (k,), generator=generator).tolist()
        sequences = [torch.randint(261, (n,), generator=generator).tolist() for n in lengths]
        items.append(RankedAnswers(sequences, [1, 2, *torch.randint(1, 4, (k - 2,), generator=generator).tolist()]))
    seen = reward_stage.Seen()
    loss = assert_same(model, lambda size: reward_stage.micro_batches(model, items, size, run, seen), (1, 2, 5))
    assert loss == pytest.approx(pairwise_loss(model, items), rel=1e-5)


def pairwise_loss(model: ScalarModel, items: list[RankedAnswers]) -> float:
    """Equation 1 of the paper pair by pair in float64: mean over prompts of the mean over ordered pairs."""
    trunk = GPT(model.config).double()
    trunk.load_state_dict(model.trunk.state_dict())
    weight, bias = model.head.weight.double(), model.head.bias.double()
    total = 0.0
    for item in items:
        scores = []
        for sequence in item.sequences:
            with torch.no_grad():
                scores.append(float(reference_hidden(trunk, torch.tensor(sequence))[-1] @ weight[0] + bias[0]))
        losses = [
            -float(nn.functional.logsigmoid(torch.tensor(scores[i] - scores[j], dtype=torch.float64)))
            for i, better in enumerate(item.ranks) for j, worse in enumerate(item.ranks) if better < worse
        ]
        total += sum(losses) / len(losses)
    return total / len(items)
