"""Prefill and decode over the paged cache against the full forward pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from instructgpt_fast.model import GPT, Chunk, Decoder, KVCache

from ..accuracy import compare
from .reference import SMALL, plain_forward, random_gpt

LENGTHS = (5, 17, 1, 16)
NEW = 9


def tokens_of(length: int, seed: int) -> Tensor:
    return torch.randint(SMALL.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))


class Sequences:
    """Sequences of up to 32 tokens, each with pages of its own, scattered over the cache."""

    def __init__(self, model: GPT, count: int, page_size: int) -> None:
        each = -(-32 // page_size)
        cache = KVCache(model.config, count * each, page_size=page_size, dtype=model.wte.weight.dtype)
        for stored in (cache.keys, cache.values):
            stored.fill_(torch.nan)  # what nobody has written must reach nobody
        scattered = torch.randperm(count * each, generator=torch.Generator().manual_seed(1))
        self.table = scattered.view(count, each).int()
        self.lengths = torch.zeros(count, dtype=torch.int32)
        self.decoder = Decoder(model, cache)

    @torch.no_grad()
    def prefill(self, parts: dict[int, Tensor]) -> list[Tensor]:
        """Append `parts` to the sequences they are named by; returns the hidden states of each."""
        chunks = [
            Chunk(part.tolist(), int(self.lengths[row]), self.table[row].tolist()) for row, part in parts.items()
        ]
        hidden = self.decoder.prefill(chunks)
        for row, part in parts.items():
            self.lengths[row] += len(part)
        return list(hidden.split([len(part) for part in parts.values()]))

    @torch.no_grad()
    def step(self, tokens: Tensor, rows: list[int]) -> Tensor:
        lengths = self.lengths[rows]
        hidden = self.decoder.step(tokens, lengths.long(), self.table[rows], lengths)
        self.lengths[rows] += 1
        return hidden


@pytest.mark.parametrize("band_width", [None, 4])
@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_decoding_equals_the_full_forward(band_width: int | None, page_size: int) -> None:
    model = random_gpt(dataclasses.replace(SMALL, band_width=band_width))
    rows = [tokens_of(n + NEW, seed=n) for n in LENGTHS]
    sequences = Sequences(model, len(rows), page_size)
    parts = sequences.prefill({i: row[:n] for i, (row, n) in enumerate(zip(rows, LENGTHS, strict=True))})
    for step in range(NEW):
        tokens = torch.stack([row[n + step] for row, n in zip(rows, LENGTHS, strict=True)])
        hidden = sequences.step(tokens, list(range(len(rows))))
        parts = [torch.cat([part, h[None]]) for part, h in zip(parts, hidden, strict=True)]
    for part, row in zip(parts, rows, strict=True):
        compare(
            part, plain_forward(model, row[None])[0], plain_forward(model, row[None], torch.float32)[0],
            rms_factor=2.0, max_factor=4.0,
            why_looser="one token at a time sums in another order than a matrix of them, and either may be luckier",
        )


def test_rows_in_any_order_and_number() -> None:
    model = random_gpt()
    rows = [tokens_of(n + NEW, seed=n) for n in LENGTHS]
    sequences = Sequences(model, 4, 4)
    sequences.prefill({i: row[:n] for i, (row, n) in enumerate(zip(rows, LENGTHS, strict=True))})
    sequences.step(torch.stack([rows[3][16], rows[1][17]]), [3, 1])
    hidden = sequences.step(torch.stack([rows[0][5], rows[3][17]]), [0, 3])
    with torch.no_grad():
        for h, row, place in ((hidden[0], rows[0], 5), (hidden[1], rows[3], 17)):
            # Two f32 routes to one vector of size about 1: a few dozen roundings of 1e-7 apart.
            torch.testing.assert_close(h, model(row[None])[0, place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("band_width", [None, 4])
@pytest.mark.parametrize("page_size", [4, 16])
def test_a_prompt_in_parts(band_width: int | None, page_size: int) -> None:
    """Chunks of any length, beside others, and decode steps between them: the same bits as the prompt at once."""
    model = random_gpt(dataclasses.replace(SMALL, band_width=band_width))
    rows = [tokens_of(n, seed=n) for n in (29, 31, 12)]
    whole = [Sequences(model, 1, page_size).prefill({0: row})[0] for row in rows]
    sequences = Sequences(model, 3, page_size)
    first = sequences.prefill({0: rows[0][:7], 2: rows[2][:7], 1: rows[1][:1]})
    second = sequences.prefill({1: rows[1][1:30], 0: rows[0][7:8]})
    last = sequences.step(torch.stack([rows[0][8], rows[1][30]]), [0, 1])
    third = sequences.prefill({0: rows[0][9:], 2: rows[2][7:]})
    found = [
        torch.cat([first[0], second[1], last[:1], third[0]]),
        torch.cat([first[2], second[0], last[1:]]),
        torch.cat([first[1], third[1]]),
    ]
    for part, expected in zip(found, whole, strict=True):
        assert torch.equal(part, expected)


def test_dropout_is_never_applied() -> None:
    model = random_gpt(dataclasses.replace(SMALL, residual_dropout=0.5)).train()
    row = tokens_of(9, 1)
    first, again = (Sequences(model, 1, 4).prefill({0: row})[0] for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3, 80])
def test_logits_into_a_buffer(batch: int, dtype: torch.dtype) -> None:
    model = random_gpt().to(dtype)
    decoder = Decoder(model, KVCache(SMALL, 1, dtype=dtype))
    hidden = torch.randn(batch, SMALL.d_model).to(dtype)
    out = torch.full((batch, SMALL.vocab_size), float("nan"))
    with torch.no_grad():
        result = decoder.logits(hidden, out=out)
        assert result.data_ptr() == out.data_ptr()
        compare(out, hidden.double() @ model.lm_weight.double().t(), hidden.float() @ model.lm_weight.float().t())
        assert torch.equal(decoder.logits(hidden), out)


def test_steps_of_any_number_of_rows_inside_and_outside_of_inference_mode() -> None:
    """Buffers are kept from step to step: neither the mode nor the number of rows before may show."""
    model = random_gpt()
    tokens = tokens_of(4, 3)
    expected = Sequences(model, 4, 4).step(tokens, [0, 1, 2, 3])
    sequences = Sequences(model, 4, 4)
    with torch.inference_mode():
        first = sequences.decoder.step(tokens[:1], torch.zeros(1).long(), sequences.table[:1], torch.zeros(1).int())
    assert torch.equal(first, expected[:1])
    assert torch.equal(sequences.step(tokens[1:], [1, 2, 3]), expected[1:])
    assert torch.equal(sequences.step(tokens[:1], [0]), expected[:1])


def test_weights_changed_in_place_are_seen() -> None:
    model = random_gpt()
    row = tokens_of(9, 1)
    sequences = Sequences(model, 2, 4)
    before = sequences.prefill({0: row})[0]
    with torch.no_grad():
        model.ln_f.weight.mul_(2.0)
        model.ln_f.bias.mul_(2.0)
    torch.testing.assert_close(sequences.prefill({1: row})[0], 2 * before)


def test_errors() -> None:
    model = random_gpt()
    decoder = Decoder(model, KVCache(SMALL, 16, page_size=4))
    with pytest.raises(ValueError, match=r"its pages \(8 tokens\) and the context \(48\), got 9 tokens"):
        decoder.prefill([Chunk(range(4), 5, [1, 2])])
    with pytest.raises(ValueError, match="got 49 tokens"):
        decoder.prefill([Chunk(range(1), 48, list(range(13)))])
    with pytest.raises(ValueError, match="pages and page_size must be positive, got pages=0"):
        KVCache(SMALL, 0)


def test_a_row_cannot_outgrow_its_pages() -> None:
    """The page behind a row's own is no page: writing there must fail, not spoil another row's."""
    model = random_gpt()
    sequences = Sequences(model, 2, 4)
    sequences.prefill({0: tokens_of(4, 1), 1: tokens_of(10, 2)})
    sequences.table[0, 1:] = -1
    with pytest.raises(RuntimeError, match="page"):
        sequences.step(torch.tensor([5]), [0])
