"""The pretraining term: its gradient is ptx_coef times that of the mean loss per token, added to what is there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.model import GPT
from instructgpt_fast.rlhf.ptx import ptx_backward, ptx_examples

from .tiny import VOCAB, tiny_gpt

COEF = 27.8


def windows() -> torch.Tensor:
    return torch.randint(0, VOCAB, (6, 9), generator=torch.Generator().manual_seed(5))


def gradients(model: GPT) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_equals_the_manual_formula() -> None:
    tokens = windows()
    model = tiny_gpt()
    # 6 windows of 9 tokens predict 8 tokens each: gamma * mean of -log pi, by hand with whole float64 logits.
    hidden = model(tokens)
    logits = hidden[:, :-1].double() @ model.lm_weight.double().T
    mean = functional.cross_entropy(logits.reshape(-1, VOCAB), tokens[:, 1:].reshape(-1), reduction="sum") / 48
    (COEF * mean).backward()
    expected = gradients(model)
    model.zero_grad()
    loss = ptx_backward(model, tokens, ptx_coef=COEF, micro_batch_size=6)
    assert loss == pytest.approx(mean.item(), rel=1e-6)  # float32 against float64
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # float32 sums in another order; the scale of a tensor's gradient is its largest entry.
        assert (found[name] - gradient).abs().max() <= 2e-5 * gradient.abs().max(), name


def test_it_adds_to_the_buffers_and_does_not_depend_on_micro_batches() -> None:
    tokens = windows()
    model = tiny_gpt()
    ptx_backward(model, tokens, ptx_coef=COEF, micro_batch_size=6)
    once = gradients(model)
    ptx_backward(model, tokens, ptx_coef=COEF, micro_batch_size=4)  # uneven parts: 4 and 2 windows
    for name, gradient in gradients(model).items():
        assert (gradient - 2 * once[name]).abs().max() <= 4e-5 * once[name].abs().max(), name


def test_loss_scale_touches_the_gradient_alone() -> None:
    model = tiny_gpt()
    plain = ptx_backward(model, windows(), ptx_coef=1.0, micro_batch_size=6)
    once = gradients(model)
    model.zero_grad()
    assert ptx_backward(model, windows(), ptx_coef=1.0, micro_batch_size=6, loss_scale=256.0) == plain
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, once[name] * 256.0), name  # a power of two is exact


def test_examples_follow_the_ratio() -> None:
    assert ptx_examples(64, 8.0) == 512
    assert ptx_examples(10, 0.25) == 2
    assert ptx_examples(1, 0.01) == 1
    with pytest.raises(ConfigError, match="ptx_ratio"):
        ptx_examples(64, 0.0)


def test_a_window_of_one_token_predicts_nothing() -> None:
    with pytest.raises(ConfigError, match="at least 2 tokens, got 1"):
        ptx_backward(tiny_gpt(), torch.zeros(3, 1, dtype=torch.int64), ptx_coef=1.0, micro_batch_size=2)
