"""Prefill and decode over the paged cache against the full forward pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from instructgpt_fast.model import GPT, Decoder, KVCache

from ..accuracy import compare
from .reference import SMALL, pack, plain_forward, random_gpt

LENGTHS = (5, 17, 1, 16)
NEW = 9


def tokens_of(length: int, seed: int) -> torch.Tensor:
    return torch.randint(SMALL.vocab_size, (length,), generator=torch.Generator().manual_seed(seed))


def filled_cache(model: GPT, rows: list[torch.Tensor], page_size: int) -> tuple[KVCache, torch.Tensor, torch.Tensor]:
    """A cache that holds the first LENGTHS tokens of each row, its row numbers, and the hidden states of these."""
    cache = KVCache(model.config, len(rows), 32, page_size=page_size, dtype=model.wte.weight.dtype)
    claimed = torch.tensor([cache.claim(n + NEW) for n in LENGTHS])
    prompts, cu_seqlens = pack([row[:n] for row, n in zip(rows, LENGTHS, strict=True)])
    return cache, claimed, model.prefill(prompts, cu_seqlens, cache, claimed)


@pytest.mark.parametrize("band_width", [None, 4])
@pytest.mark.parametrize("page_size", [1, 4, 16])
def test_decoding_equals_the_full_forward(band_width: int | None, page_size: int) -> None:
    model = random_gpt(dataclasses.replace(SMALL, band_width=band_width))
    rows = [tokens_of(n + NEW, seed=n) for n in LENGTHS]
    cache, claimed, hidden = filled_cache(model, rows, page_size)
    parts = list(hidden.split(LENGTHS))
    for step in range(NEW):
        tokens = torch.stack([row[n + step] for row, n in zip(rows, LENGTHS, strict=True)])
        hidden = model.decode(tokens, cache, claimed)
        parts = [torch.cat([part, h[None]]) for part, h in zip(parts, hidden, strict=True)]
    assert cache.lengths[claimed].tolist() == [n + NEW for n in LENGTHS]
    for part, row in zip(parts, rows, strict=True):
        compare(
            part, plain_forward(model, row[None])[0], plain_forward(model, row[None], torch.float32)[0],
            rms_factor=2.0, max_factor=4.0,
            why_looser="one token at a time sums in another order than a matrix of them, and either may be luckier",
        )


def test_rows_in_any_order_and_number() -> None:
    model = random_gpt()
    rows = [tokens_of(n + NEW, seed=n) for n in LENGTHS]
    cache, claimed, _ = filled_cache(model, rows, 4)
    model.decode(torch.stack([rows[3][16], rows[1][17]]), cache, claimed[[3, 1]])
    assert cache.lengths[claimed].tolist() == [5, 18, 1, 17]
    hidden = model.decode(torch.stack([rows[0][5], rows[3][17]]), cache, claimed[[0, 3]])
    with torch.no_grad():
        for h, row, place in ((hidden[0], rows[0], 5), (hidden[1], rows[3], 17)):
            # Two f32 routes to one vector of size about 1: a few dozen roundings of 1e-7 apart.
            torch.testing.assert_close(h, model(row[None])[0, place], rtol=1e-4, atol=1e-5)


def test_freed_pages_serve_the_next_row() -> None:
    model = random_gpt()
    cache = KVCache(SMALL, 2, 32, page_size=4)
    old, kept = tokens_of(20, 1), tokens_of(24, 2)
    first, second = cache.claim(21), cache.claim(32)
    prompts, cu_seqlens = pack([old, kept])
    model.prefill(prompts, cu_seqlens, cache, torch.tensor([first, second]))
    cache.free(first)
    new = tokens_of(30, 3)
    row = cache.claim(32)
    assert row == first
    model.prefill(new[:29], torch.tensor([0, 29], dtype=torch.int32), cache, torch.tensor([row]))
    hidden = model.decode(torch.stack([new[29], kept[0]]), cache, torch.tensor([row, second]))
    with torch.no_grad():
        # As above; the second row also shows that its own pages were not touched.
        torch.testing.assert_close(hidden[0], model(new[None])[0, -1], rtol=1e-4, atol=1e-5)
        longer = torch.cat([kept, kept[:1]])
        torch.testing.assert_close(hidden[1], model(longer[None])[0, -1], rtol=1e-4, atol=1e-5)


def test_dropout_is_never_applied() -> None:
    model = random_gpt(dataclasses.replace(SMALL, residual_dropout=0.5)).train()
    rows = [tokens_of(n + NEW, seed=n) for n in LENGTHS]
    assert torch.equal(filled_cache(model, rows, 4)[2], filled_cache(model, rows, 4)[2])


@pytest.mark.parametrize("batch", [1, 3, 80])
def test_logits_into_a_buffer(batch: int) -> None:
    model = random_gpt()
    decoder = Decoder(model, KVCache(SMALL, 1, 8))
    hidden = torch.randn(batch, SMALL.d_model)
    out = torch.full((batch, SMALL.vocab_size), float("nan"))
    with torch.no_grad():
        result = decoder.logits(hidden, out=out)
        assert result.data_ptr() == out.data_ptr()
        compare(out, hidden.double() @ model.lm_weight.double().t(), model.logits(hidden))


def test_errors() -> None:
    model = random_gpt()
    cache = KVCache(SMALL, 1, 8, page_size=4)
    row = cache.claim(8)
    tokens, cu_seqlens, rows = tokens_of(3, 1), torch.tensor([0, 3], dtype=torch.int32), torch.tensor([row])
    model.prefill(tokens, cu_seqlens, cache, rows)
    with pytest.raises(ValueError, match="rows of the cache must be empty"):
        model.prefill(tokens, cu_seqlens, cache, rows)
    with pytest.raises(ValueError, match="0 rows"):
        cache.claim(1)
    cache.free(row)
    with pytest.raises(ValueError, match="not claimed"):
        cache.free(row)
    with pytest.raises(ValueError, match=r"1\.\.8 tokens.*got 9 tokens"):
        cache.claim(9)
    with pytest.raises(ValueError, match="context of 8 tokens, got 9"):
        cache.claim(8)
        model.prefill(tokens_of(9, 1), torch.tensor([0, 9], dtype=torch.int32), cache, rows)
    with pytest.raises(ValueError, match=r"within 1\.\.48"):
        KVCache(SMALL, 1, 49)


def test_a_row_cannot_outgrow_its_claim() -> None:
    """The pages behind a row's own are another row's: writing there must fail, not spoil them."""
    model = random_gpt()
    cache = KVCache(SMALL, 2, 16, page_size=4)
    short, long = cache.claim(4), cache.claim(16)
    prompts, cu_seqlens = pack([tokens_of(4, 1), tokens_of(10, 2)])
    model.prefill(prompts, cu_seqlens, cache, torch.tensor([short, long]))
    with pytest.raises(RuntimeError, match="page"):
        model.decode(torch.tensor([5]), cache, torch.tensor([short]))
    cache.free(short)
    with pytest.raises((RuntimeError, IndexError)):
        model.prefill(tokens_of(6, 3), torch.tensor([0, 6], dtype=torch.int32), cache, torch.tensor([cache.claim(4)]))
    assert cache.lengths.tolist() == [0, 10]
