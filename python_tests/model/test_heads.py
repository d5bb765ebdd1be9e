"""Scalar models: the head's start, f32 outputs, the shift that survives a cast, and the score at the last token."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast.model import GPTConfig, ScalarModel, scores_at_last

from ..accuracy import compare
from .reference import SMALL, pack, random_gpt


def scalar_model() -> ScalarModel:
    model = ScalarModel.from_gpt(random_gpt())
    model.bias_shift.fill_(1.0 / 3.0)
    return model


def test_forward_is_head_of_hidden_plus_shift() -> None:
    model = scalar_model()
    with torch.no_grad():
        model.head.bias.fill_(0.7)
    tokens = torch.randint(SMALL.vocab_size, (2, 13))
    with torch.no_grad():
        hidden = model.trunk(tokens)
        truth = hidden.double() @ model.head.weight.double()[0] + 0.7 + 1.0 / 3.0
        yardstick = hidden @ model.head.weight[0] + model.head.bias + model.bias_shift
        values = model(tokens)
    assert values.shape == tokens.shape
    # 0.7 and 1/3 are themselves rounded to f32 in the model, half an ulp each beside the truth.
    compare(values, truth, yardstick, max_factor=3.0, why_looser="the constants are rounded in both")


def test_packed_scores_equal_each_alone() -> None:
    model = scalar_model()
    rows = [torch.randint(SMALL.vocab_size, (n,)) for n in (3, 20, 1)]
    tokens, cu_seqlens = pack(rows)
    with torch.no_grad():
        scores = scores_at_last(model(tokens, cu_seqlens=cu_seqlens), cu_seqlens)
        alone = torch.stack([model(row[None])[0, -1] for row in rows])
    # Sums of d_model f32 products in two orders: some 1e-7 of the size of the terms.
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)


def test_half_precision_gives_f32_and_keeps_the_shift() -> None:
    model = scalar_model().to(torch.bfloat16)
    assert model.head.weight.dtype == torch.bfloat16
    assert model.bias_shift.dtype == torch.float32
    assert model.bias_shift.item() == torch.tensor(1.0 / 3.0).item()
    assert model(torch.zeros(1, 4, dtype=torch.int64)).dtype == torch.float32
    assert model.float().bias_shift.item() == torch.tensor(1.0 / 3.0).item()


def test_fresh_head() -> None:
    torch.manual_seed(0)
    model = ScalarModel(GPTConfig(vocab_size=20, n_positions=8, n_layer=1, n_head=2, d_model=1024))
    # 1024 draws know their deviation to 1 / sqrt(2048), 2.2 %; four of these.
    assert model.head.weight.std().item() == pytest.approx(1 / 1025**0.5, rel=0.09)
    assert model.head.bias.item() == 0.0
    assert model.bias_shift.item() == 0.0


def test_from_gpt_takes_the_trunk_itself() -> None:
    gpt = random_gpt()
    assert ScalarModel.from_gpt(gpt).trunk is gpt


def test_shift_is_saved_and_not_trained() -> None:
    model = scalar_model()
    assert "bias_shift" in model.state_dict()
    assert "bias_shift" not in dict(model.named_parameters())


def test_empty_sequence_has_no_score() -> None:
    with pytest.raises(ValueError, match=r"at least one token, got lengths \[2, 0, 1\]"):
        scores_at_last(torch.zeros(3), torch.tensor([0, 2, 2, 3], dtype=torch.int32))
