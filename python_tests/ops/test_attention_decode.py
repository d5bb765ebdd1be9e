"""attention_decode against its float64 oracle and against attention over the whole sequence; what it must not touch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library
from instructgpt_fast.ops.attention import attention, attention_oracle
from instructgpt_fast.ops.attention_decode import attention_decode, attention_decode_oracle
from python_tests.accuracy import compare, same_bits
from python_tests.ops.suite import BadCall, Case, New, OpSuite, Sabotage

Inputs = dict[str, Any]


def step(lens: tuple[int, ...], heads: int, kv_heads: int, width: int, *, tokens: int = 1,
         page: int = 4) -> Callable[[New], Inputs]:
    """Rows with `lens` cached tokens in pages dealt out in random order; unused table entries point nowhere."""
    def draw(new: New) -> Inputs:
        needed = [-(-(length + tokens) // page) for length in lens]
        pages = sum(needed) + 2
        order = torch.randperm(pages, generator=new.generator).int()
        table = torch.full((len(lens), max(needed, default=1) + 1), -1, dtype=torch.int32)
        for row, count in enumerate(needed):
            table[row, :count], order = order[:count], order[count:]
        return {
            "q": new(len(lens), tokens, heads, width), "k": new(len(lens), tokens, kv_heads, width),
            "v": new(len(lens), tokens, kv_heads, width), "k_cache": new(pages, page, kv_heads, width),
            "v_cache": new(pages, page, kv_heads, width), "block_table": table,
            "cache_lens": torch.tensor(lens, dtype=torch.int32),
        }

    return draw


def shared_pages(new: New) -> Inputs:
    """Three rows that begin with the same two pages, which nobody writes, and go on in pages of their own."""
    inputs = step((13, 9, 16), 2, 1, 64)(new)
    inputs["block_table"][:, :2] = inputs["block_table"][0, :2]
    return inputs


def on_copies(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Calls with copies of the caches and returns them too: they are results."""
    def call(*, k_cache: Tensor, v_cache: Tensor, **rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        caches = {"k_cache": k_cache.clone(memory_format=torch.contiguous_format),
                  "v_cache": v_cache.clone(memory_format=torch.contiguous_format)}
        return function(**caches, **rest), caches["k_cache"], caches["v_cache"]

    return call


def plain(*, q: Tensor, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, block_table: Tensor,
          cache_lens: Tensor, window: int | None = None, scale: float | None = None) -> Tensor:
    """Plain PyTorch in the op's dtype: gather the row's keys and values, and SDPA."""
    out = torch.zeros_like(q)
    page, group = k_cache.shape[1], q.shape[2] // k.shape[2]
    for row, cached in enumerate(cache_lens.tolist()):
        for token in range(q.shape[1]):
            at = cached + token
            place = (block_table[row, at // page].long(), at % page)
            k_cache[place], v_cache[place] = k[row, token], v[row, token]
            seen = torch.arange(0 if window is None else max(0, at + 1 - window), at + 1)
            keys, values = (c[block_table[row, seen // page].long(), seen % page].repeat_interleave(group, 1)
                            .transpose(0, 1)[None] for c in (k_cache, v_cache))
            out[row, token] = F.scaled_dot_product_attention(q[row, token][None, :, None], keys, values,
                                                             scale=scale)[0, :, 0]
    return out


def nan_where_new_tokens_go(inputs: Inputs) -> Inputs | None:
    """NaN in the slots that the call fills: what they held before must not be read."""
    page = inputs["k_cache"].shape[1]
    fresh = torch.zeros(inputs["k_cache"].shape[:2], dtype=torch.bool)
    for row, cached in enumerate(inputs["cache_lens"].tolist()):
        positions = torch.arange(cached, cached + inputs["q"].shape[1])
        fresh[inputs["block_table"][row, positions // page].long(), positions % page] = True
    if not bool(fresh.any()):
        return None
    poisoned = {name: inputs[name].masked_fill(fresh[..., None, None], torch.nan) for name in ("k_cache", "v_cache")}
    return {**inputs, **poisoned}


class TestAttentionDecode(OpSuite):
    name = "attention_decode"
    op = staticmethod(on_copies(attention_decode))
    oracle = staticmethod(on_copies(attention_decode_oracle))
    yardstick = staticmethod(on_copies(plain))
    poison = staticmethod(nan_where_new_tokens_go)
    cases = (
        Case("three rows", step((5, 0, 17), 2, 2, 64)),
        Case("two query heads a key head", step((9, 2), 4, 2, 16)),
        Case("one key head, width 20", step((30,), 3, 1, 20)),
        Case("several new tokens", step((5, 12), 2, 1, 16, tokens=3)),
        Case("window", step((3, 40), 2, 2, 16), {"window": 7}),
        Case("window, several new tokens", step((3, 40), 4, 2, 16, tokens=5), {"window": 6}),
        Case("window 1", step((9,), 1, 1, 8), {"window": 1}),
        Case("another scale, page 16, width 128", step((33, 15), 1, 1, 128, page=16), {"scale": 0.5}),
        Case("width 80, page 5", step((7, 33), 2, 2, 80, page=5)),
        Case("eight query heads a key head, two tokens", step((21,), 16, 2, 64, tokens=2, page=16)),
        Case("four query heads a key head, width 96, five tokens", step((30, 0), 4, 1, 96, tokens=5, page=16)),
        Case("forty new tokens", step((3,), 1, 1, 64, tokens=40, page=16)),
        Case("a long row", step((300,), 1, 1, 64, page=16)),
        Case("a long row, a window, two tokens", step((290, 4), 2, 1, 80, tokens=2, page=16), {"window": 200}),
        Case("width 7", step((70,), 2, 1, 7)),
        Case("width 200", step((9,), 1, 1, 200)),
        Case("pages that rows share", shared_pages),
        Case("no rows", step((), 2, 2, 8)),
        Case("no new tokens", step((3,), 2, 2, 8, tokens=0)),
    )
    sabotages = (
        Sabotage("one token too few", lambda i: {**i, "cache_lens": (i["cache_lens"] - 1).clamp(min=0)}),
        Sabotage("pages swapped", lambda i: {**i, "k_cache": i["k_cache"].roll(1, 0)}),
        Sabotage("old values off by one slot", lambda i: {**i, "v_cache": i["v_cache"].roll(1, 1)}),
        Sabotage("heads swapped", lambda i: {**i, "q": i["q"].flip(2)}),
    )
    bad_calls = (
        BadCall("row outgrows its table", lambda i: {**i, "cache_lens": i["cache_lens"] + 20}, RuntimeError,
                "row 0 would hold 26 tokens, its block_table has room for 24"),
        BadCall("page outside", lambda i: {**i, "block_table": i["block_table"] * 0 + 99}, RuntimeError,
                r"pages in \[0, 10\) where row 0 needs them, got 99"),
        BadCall("page missing", lambda i: {**i, "cache_lens": i["cache_lens"] + 3}, RuntimeError, "got -1"),
        BadCall("negative length", lambda i: {**i, "cache_lens": i["cache_lens"] - 1}, RuntimeError,
                "at least 0, got -1 in row 1"),
        BadCall("int64 lengths", lambda i: {**i, "cache_lens": i["cache_lens"].long()}, TypeError, "int32, got int64"),
        BadCall("int64 table", lambda i: {**i, "block_table": i["block_table"].long()}, TypeError, "int32, got int64"),
        BadCall("rows", lambda i: {**i, "cache_lens": i["cache_lens"][1:]}, ValueError, r"shape \(3,\)"),
        BadCall("table rows", lambda i: {**i, "block_table": i["block_table"][1:]}, ValueError, "q's rows"),
        BadCall("tokens", lambda i: {**i, "k": i["k"][:, :0]}, ValueError, "q's rows, tokens and width"),
        BadCall("v", lambda i: {**i, "v": i["v"][:, :, :1]}, ValueError, "k's shape"),
        BadCall("cache heads", lambda i: {**i, "k_cache": i["k_cache"][:, :, :1]}, ValueError, "k's heads and width"),
        BadCall("caches differ", lambda i: {**i, "v_cache": i["v_cache"][1:]}, ValueError, "k_cache's shape"),
        BadCall("cache dtype", lambda i: {**i, "v_cache": i["v_cache"].half()}, TypeError, "must have q's dtype"),
        BadCall("heads", lambda i: {**i, "q": i["q"][:, :, :1]}, ValueError, "multiple of k's.*got 1 and 2 heads"),
        BadCall("window", lambda i: {**i, "window": 0}, ValueError, r"at least 1 and below 2\^63, got 0"),
        BadCall("scale", lambda i: {**i, "scale": 0.0}, ValueError, "finite and above 0, got 0.0"),
        BadCall("scale that float32 rounds to 0", lambda i: {**i, "scale": 1e-50}, ValueError, "in .*, got 1e-50"),
        BadCall("gradient", lambda i: {**i, "q": i["q"].requires_grad_()}, ValueError, r"under torch.no_grad\(\)"),
    )


def test_a_strided_cache_is_refused() -> None:
    inputs = step((3,), 1, 1, 8)(New(torch.float32))
    wide = torch.zeros(*inputs["k_cache"].shape[:3], 16)[..., ::2]
    with pytest.raises(ValueError, match="attention_decode: k_cache is written in place and must be contiguous"):
        attention_decode(**{**inputs, "k_cache": wide})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_token_by_token_equals_attention_over_the_whole(dtype: torch.dtype) -> None:
    """Twelve tokens fed in pieces of 1, 4, 1, 6 are as near to the oracle as attention on all at once is."""
    new = New(dtype)
    q, k, v = new(1, 12, 4, 16), new(1, 12, 2, 16), new(1, 12, 2, 16)
    k_cache, v_cache = torch.zeros(5, 3, 2, 16, dtype=dtype), torch.zeros(5, 3, 2, 16, dtype=dtype)
    table, outs, at = torch.tensor([[4, 1, 3, 0]], dtype=torch.int32), [], 0
    for count in (1, 4, 1, 6):
        part = slice(at, at + count)
        outs.append(attention_decode(q[:, part], k[:, part], v[:, part], k_cache, v_cache, table,
                                     torch.tensor([at], dtype=torch.int32)))
        at += count
    oracle = attention_oracle(q.double(), k.double(), v.double())
    compare(torch.cat(outs, 1), oracle, attention(q, k, v))


@pytest.mark.parametrize("window", [None, 1, 21, 40])
@pytest.mark.parametrize("heads, kv_heads, width, page", [(2, 2, 64, 16), (4, 1, 20, 5), (3, 1, 80, 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_prompt_in_any_pieces_has_the_same_bits(
    dtype: torch.dtype, heads: int, kv_heads: int, width: int, page: int, window: int | None
) -> None:
    """One token at a time, all at once, and in uneven pieces, one of which holds NaN that earlier tokens do not see."""
    new, length = New(dtype), 107
    q, k, v = new(1, length, heads, width), new(1, length, kv_heads, width), new(1, length, kv_heads, width)
    k[:, 103], v[:, 103] = torch.nan, torch.inf
    pages = -(-length // page)
    table = torch.randperm(pages, generator=new.generator).int()[None]

    def fed(pieces: Sequence[int]) -> Tensor:
        caches = [torch.full((pages, page, kv_heads, width), torch.nan, dtype=dtype) for _ in "kv"]
        outs, at = [], 0
        for count in pieces:
            part, lens = slice(at, at + count), torch.tensor([at], dtype=torch.int32)
            outs.append(attention_decode(q[:, part], k[:, part], v[:, part], *caches, table, lens, window=window))
            at += count
        assert at == length
        return torch.cat(outs, 1)

    one_by_one = fed([1] * length)
    assert bool(one_by_one[:, :103].isfinite().all())
    for pieces in ([length], [2, 3, 60, 1, 41], [33, 37, 37], [106, 1], [64, 43]):
        assert same_bits(fed(pieces), one_by_one), f"pieces of {pieces}"


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    inputs = step((300, 7, 90), 4, 2, 64, tokens=50, page=16)(New(torch.float32))
    threads, outs = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        outs.append(on_copies(attention_decode)(**inputs)[0])
    torch.set_num_threads(threads)
    assert same_bits(outs[0], outs[1]) and same_bits(outs[0], outs[2])


def test_slots_of_others_are_neither_read_nor_written() -> None:
    inputs = step((5, 0, 17), 2, 2, 16)(New(torch.float32))
    page = inputs["k_cache"].shape[1]
    owned = torch.zeros(inputs["k_cache"].shape[:2], dtype=torch.bool)
    for row, cached in enumerate(inputs["cache_lens"].tolist()):
        positions = torch.arange(cached + 1)
        owned[inputs["block_table"][row, positions // page].long(), positions % page] = True
    clean, *_ = on_copies(attention_decode)(**inputs)
    for name in ("k_cache", "v_cache"):
        inputs[name][~owned] = torch.nan
    assert same_bits(clean, attention_decode(**inputs))
    assert bool(inputs["k_cache"][~owned].isnan().all()) and bool(inputs["k_cache"][owned].isfinite().all())


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    inputs = step((50, 3, 17), 2, 2, 16)(New(torch.float32))
    together, *_ = on_copies(attention_decode)(**inputs)
    alone = {n: (t[1:2] if n in ("q", "k", "v", "block_table", "cache_lens") else t) for n, t in inputs.items()}
    assert same_bits(together[1:2], attention_decode(**alone))


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("arrangement", ["parts of one projection", "rows far apart", "one token for all", "turned"])
def test_queries_keys_and_values_lie_anywhere(tokens: int, arrangement: str) -> None:
    """What is read where it stands, and what is copied first, gives the bits that dense tensors give."""
    inputs = step((50, 3, 17), 2, 2, 16, tokens=tokens)(New(torch.float32))
    if arrangement == "one token for all":
        inputs.update({name: inputs[name][:1, :1].expand_as(inputs[name]) for name in ("q", "k", "v")})
    dense = {name: tensor.contiguous() for name, tensor in inputs.items()}
    if arrangement == "parts of one projection":
        inputs["q"], inputs["k"], inputs["v"] = torch.stack([inputs[name] for name in ("q", "k", "v")], 2).unbind(2)
    elif arrangement == "rows far apart":
        inputs.update({name: torch.cat([inputs[name], inputs[name] * 2], 1)[:, :tokens] for name in ("q", "k", "v")})
    elif arrangement == "turned":
        inputs.update({name: inputs[name].mT.contiguous().mT for name in ("q", "k", "v")})
    found, expected = on_copies(attention_decode)(**inputs), on_copies(attention_decode)(**dense)
    assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
    assert found[0].is_contiguous()


def test_pages_behind_the_window_may_be_gone() -> None:
    """A windowed row can give its old pages back: their table entries are not read."""
    inputs = step((40,), 1, 1, 8)(New(torch.float32))
    table = inputs["block_table"].clone()
    table[0, : (41 - 6) // 4] = -1
    whole, *_ = on_copies(attention_decode)(**inputs, window=6)
    assert same_bits(whole, attention_decode(**{**inputs, "block_table": table}, window=6))


def test_cuda_execution_is_traced() -> None:
    """Fake CUDA tensors pass the door and the fake where the CUDA half was built, and meet a clear error where not."""
    with FakeTensorMode():
        inputs = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                  for name, tensor in step((3, 9), 4, 2, 64)(New(torch.bfloat16)).items()}
        if "attention_decode" not in _library.CUDA_OPERATORS:
            with pytest.raises(BackendError, match="attention_decode: has no CUDA kernel"):
                attention_decode(**inputs)
            return
        out = attention_decode(**inputs)
        assert (out.device.type, out.dtype, tuple(out.shape)) == ("cuda", torch.bfloat16, (2, 1, 4, 64))
