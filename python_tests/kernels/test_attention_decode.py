"""attention_decode's kernels: keys and values are read once a tile of queries, new ones written once, no row waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from instructgpt_fast import ops, simt
from python_tests.accuracy import same_bits
from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_attention_decode as op_tests
from python_tests.ops.suite import Inputs, New

Traffic = Mapping[str, Mapping[str, Bytes]]
WARPS = 4


def traffic_of(inputs: Inputs, *, tile: int, step: int, splits: int, window: int = 0) -> Traffic:
    """What the launch must move: `tile` queries of a row and key head at a time, in steps of `step` positions.

    Positions that a tile sees are cut into `splits` equal shares of whole steps; shares without any have no sums.
    """
    rows, tokens, heads, width = inputs["q"].shape
    page, kv_heads, group = inputs["k_cache"].shape[1], inputs["k"].shape[2], heads // inputs["k"].shape[2]
    size = width * inputs["q"].element_size()
    old = new = pages = queries = partial = blocks = 0
    for cached in inputs["cache_lens"].tolist():
        for first in range(0, tokens * group, tile):
            count = min(tile, tokens * group - first)
            begin = max(0, cached + first // group + 1 - window) if window else 0
            end = cached + (first + count - 1) // group + 1
            steps = -(-(end - begin) // step)
            a_share = -(-steps // splits)
            shares = -(-steps // a_share)
            starts = range(begin, end, step)
            pages += sum(len({n // page for n in range(at, min(at + step, end))}) for at in starts)
            old += max(0, cached - begin)
            new += end - max(begin, cached)
            queries += splits * count
            blocks += splits
            partial += shares * count if shares > 1 else 0
    moved = {
        "q": (WARPS * kv_heads * queries * size, 0),
        "cache_lens": (WARPS * kv_heads * blocks * 4, 0),
        "block_table": (kv_heads * pages * 4, 0),
        "output 0": (0, rows * tokens * heads * size),
        "scratch 0": (kv_heads * partial * (width + 2) * 4,) * 2,
    }
    for name in ("k", "v"):
        moved[name] = (kv_heads * new * size, 0)
        moved[f"{name}_cache"] = (kv_heads * old * size, rows * tokens * kv_heads * size)
    return {"attention_decode": moved}


def moving(**sizes: int) -> Any:
    return lambda inputs: traffic_of(inputs, **sizes)


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
step = op_tests.step


PAIRS = {
    ("shuffle_wrong_lane", f"shuffle_xor({number}, 2)"): "after the first exchange a pair of lanes has one number"
    for number in ("total", "top")
}


class TestAttentionDecodeKernels(KernelSuite):
    suite = op_tests.TestAttentionDecode
    cases = (
        KernelCase("width 64", step((37, 0), 2, 2, 64, page=16), BF16, traffic=moving(tile=16, step=16, splits=1)),
        KernelCase("width 80, page 5", step((21,), 2, 1, 80, page=5), F16, traffic=moving(tile=16, step=16, splits=1)),
        KernelCase("width 96, a window", step((50,), 8, 1, 96, tokens=2, page=16), BF16, {"window": 30},
                   moving(tile=16, step=16, splits=1, window=30)),
        KernelCase("width 128, two tiles", step((5,), 3, 1, 128, tokens=7), F16,
                   traffic=moving(tile=16, step=16, splits=1)),
        KernelCase("three shares", step((200,), 1, 1, 64, page=16), BF16,
                   traffic=moving(tile=16, step=16, splits=3)),
        KernelCase("more shares than steps", step((3, 400), 2, 1, 64, page=64), BF16,
                   traffic=moving(tile=16, step=16, splits=8)),
        KernelCase("f32, width 64", step((25,), 1, 1, 64, page=16), F32, traffic=moving(tile=1, step=8, splits=1)),
        KernelCase("f32, width 128, three shares", step((190,), 2, 1, 128, tokens=2, page=16), F32,
                   traffic=moving(tile=4, step=4, splits=3)),
        KernelCase("f32, width 80, one query", step((9,), 1, 1, 80, page=16), F32,
                   traffic=moving(tile=1, step=4, splits=1)),
        KernelCase("elements one by one", step((11,), 2, 1, 37, tokens=3), BF16),
        KernelCase("elements one by one, one query", step((70,), 1, 1, 200, page=32), F16),
    )
    equivalent: ClassVar = PAIRS


def broken_rows(width: int, tokens: int) -> Callable[[New], Inputs]:
    """Five rows: of negative length, right, too long for the table, without an old page, without the new one's page."""

    def draw(new: New) -> Inputs:
        inputs = step((7, 45, 9, 40, 12), 2, 1, width, tokens=tokens)(new)
        inputs["cache_lens"][0], inputs["cache_lens"][2] = -3, inputs["block_table"].shape[1] * 4 - tokens + 1
        inputs["block_table"][3, 2], inputs["block_table"][4, 3] = -1, inputs["k_cache"].shape[0]
        return inputs

    return draw


def as_on_a_gpu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What the contract says of rows that cannot be served, around a function that serves the others."""

    def call(*, cache_lens: Tensor, block_table: Tensor, k_cache: Tensor, v_cache: Tensor, **step: Tensor) -> Tensor:
        out = torch.full_like(step["q"], torch.nan)
        tokens, page = step["q"].shape[1], k_cache.shape[1]
        for row, cached in enumerate(cache_lens.tolist()):
            if cached < 0 or cached + tokens > block_table.shape[1] * page:
                continue
            pages = block_table[row, : (cached + tokens - 1) // page + 1].tolist()
            if all(0 <= number < k_cache.shape[0] for number in pages):
                alone = {name: tensor[row : row + 1] for name, tensor in step.items()}
                out[row] = function(k_cache=k_cache, v_cache=v_cache, block_table=block_table[row : row + 1],
                                    cache_lens=cache_lens[row : row + 1], **alone)[0]
                continue
            for token in range(tokens):
                number, place = pages[(cached + token) // page], (cached + token) % page
                if 0 <= number < k_cache.shape[0]:
                    k_cache[number, place], v_cache[number, place] = step["k"][row, token], step["v"][row, token]
        return out

    return call


class BrokenRows(op_tests.TestAttentionDecode):
    """The op on a GPU, where such rows are no errors."""

    __test__ = False
    oracle = staticmethod(op_tests.on_copies(as_on_a_gpu(ops.attention_decode_oracle)))
    yardstick = staticmethod(op_tests.on_copies(as_on_a_gpu(op_tests.plain)))


class TestRowsThatCannotBeServed(KernelSuite):
    """They give NaN, write nothing outside of their own pages, and disturb nobody."""

    suite = BrokenRows
    cases = (
        KernelCase("width 64", broken_rows(64, 1), BF16, traffic=lambda inputs: BROKEN_TRAFFIC),
        KernelCase("f32", broken_rows(24, 2), F32),
    )
    more_sectors: ClassVar = {"block_table": (1.6, "a row of 13 pages begins anywhere within a sector")}
    equivalent: ClassVar = {
        **PAIRS, ("drop_store", '__builtin_nanf("")));'): "what nobody has written is NaN in the emulator in any case",
    }


# Three rows of 46, 41 and 13 positions are read, of which two lack a page: 4 old positions, and a new one. All five ask
# for their length and their two queries, by four warps; pages of 4 positions; 128 bytes a key.
BROKEN_TRAFFIC: Traffic = {"attention_decode": {
    "q": (4 * 5 * 2 * 128, 0), "cache_lens": (4 * 5 * 4, 0), "block_table": (4 * (12 + 11 + 4), 0),
    "k": (2 * 128, 0), "v": (2 * 128, 0),
    "k_cache": ((45 + 36 + 12) * 128, 2 * 128), "v_cache": ((45 + 36 + 12) * 128, 2 * 128),
    "output 0": (0, 5 * 2 * 128),
}}


def emulated(inputs: Inputs, **options: Any) -> tuple[Tensor, simt.Run]:
    with simt.executing(**options) as run:
        out = ops.attention_decode(**inputs)
    assert not run.not_emulated
    return out, run


def on_copies(inputs: Inputs) -> Inputs:
    return {**inputs, "k_cache": inputs["k_cache"].clone(), "v_cache": inputs["v_cache"].clone()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("change", [
    lambda i: i["cache_lens"][1].fill_(-1),
    lambda i: i["cache_lens"][1].fill_(200),
    lambda i: i["cache_lens"][1].fill_(2**31 - 1),
    lambda i: i["block_table"][1, 0].fill_(99),
    lambda i: i["block_table"][1, 2].fill_(-1),
    lambda i: i["block_table"][1, 8].fill_(2**31 - 1),
], ids=["negative length", "too long", "far too long", "page outside", "page missing", "page of the new token outside"])
def test_a_row_that_cannot_be_served_gives_nan(dtype: torch.dtype, change: Any) -> None:
    """Nobody can raise an error on the device: its neighbours are as they were, and no slot but theirs is written."""
    good = step((40, 130, 6), 2, 2, 64, page=16)(New(dtype))
    expected, _ = emulated(right := on_copies(good))
    change(bad := {name: tensor.clone() for name, tensor in good.items()})
    for schedule in ("forward", "random"):
        out, _ = emulated(written := on_copies(bad), schedule=schedule)
        assert bool(out[1].isnan().all())
        assert same_bits(out[::2], expected[::2])
        new = {int(good["block_table"][1, 8]): 130 % 16}  # the slot that the row's token goes to when it can be served
        for name in ("k_cache", "v_cache"):
            for page, place in new.items():
                written[name][page, place] = right[name][page, place]
            assert same_bits(written[name], right[name])


def test_only_tokens_that_see_a_missing_page_are_lost() -> None:
    """Tiles of 16 queries: the first 16 of 40 new tokens do not see the last page."""
    inputs = step((3,), 1, 1, 64, tokens=40, page=16)(New(torch.bfloat16))
    expected, _ = emulated(on_copies(inputs))
    inputs["block_table"][0, 2] = -1
    out, _ = emulated(on_copies(inputs))
    assert same_bits(out[:, :16], expected[:, :16]) and bool(out[:, 29:].isnan().all())


@pytest.mark.parametrize(("dtype", "kernel"), [
    (torch.bfloat16, "attention_decode_mma"), (torch.float32, "attention_decode_general"),
], ids=str)
def test_views_of_one_product_are_read_as_they_lie(dtype: torch.dtype, kernel: str) -> None:
    """q, k and v as the model hands them over, parts of one matrix product: nothing is copied, one launch does all."""
    inputs = step((20, 70), 2, 2, 64, page=16)(New(dtype))
    product = torch.stack([inputs["q"], inputs["k"], inputs["v"]], 2)  # [B, 1, 3, H, D]
    expected, _ = emulated(on_copies(inputs))
    q, k, v = product.unbind(2)
    out, run = emulated({**on_copies(inputs), "q": q, "k": k, "v": v}, accounting=True)
    assert same_bits(out, expected)
    assert [launch.kernel for launch in run.launches] == [kernel]
    assert not any(name.startswith("unnamed") for name in run.launches[0].buffers)


def test_the_shares_do_not_depend_on_who_comes_last() -> None:
    """Equal bits over twenty orders of threads and blocks, with the row cut into eight shares."""
    inputs = step((500,), 1, 1, 64, page=16)(New(torch.bfloat16))
    expected, run = emulated(on_copies(inputs), accounting=True)
    assert "scratch 0" in run.launches[0].buffers
    for seed in range(20):
        out, _ = emulated(on_copies(inputs), schedule="random", seed=seed)
        assert same_bits(out, expected)


def test_lengths_and_pages_are_not_asked_for_on_the_host() -> None:
    """What a captured launch needs: its grid depends on the table's size alone, whatever the lengths."""
    inputs = step((500,), 1, 1, 64, page=16)(New(torch.bfloat16))
    _, long = emulated(on_copies(inputs), accounting=True)
    _, short = emulated({**on_copies(inputs), "cache_lens": torch.tensor([2], dtype=torch.int32)}, accounting=True)
    assert [launch.grid for launch in short.launches] == [launch.grid for launch in long.launches] == [(8, 1)]


def test_what_is_too_large_is_refused() -> None:
    inputs = step((3,), 1, 1, 264)(New(torch.float32))
    with pytest.raises(RuntimeError, match="attention_decode: q must have at most 256 columns on a GPU, got 264"):
        emulated(inputs)
    inputs = step((3,), 1, 1, 8)(New(torch.float32))
    wide = inputs["block_table"].new_zeros(1, 1).expand(1, 2**29)
    with pytest.raises(RuntimeError, match="attention_decode: on a GPU a row of block_table and the cache have at"):
        emulated({**inputs, "block_table": wide})
