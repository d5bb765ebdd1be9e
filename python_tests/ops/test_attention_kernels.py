"""attention's kernels of every path, on the shapes where tiles end, begin, stay empty or are left out.

`test_attention.py` states what the op must show everywhere; here one call a shape goes through the emulator as each
architecture, judged as there, gradients included. The paths: mma and hopper by architecture, for 16-bit elements of the
widths that tensor cores serve; general for what is left.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instructgpt_fast import simt
from instructgpt_fast.ops.attention import attention
from python_tests.accuracy import same_bits
from python_tests.ops import test_attention  # the module: pytest would collect an imported class twice
from python_tests.ops.suite import Case, New
from python_tests.ops.test_attention import dense, packed

PATHS = {80: "attention_mma", 90: "attention_hopper"}  # as their sources are called
ARCHITECTURES = tuple(PATHS)
WIDTHS = (64, 80, 96, 128)

SHAPES = (
    *(Case(f"length {n}", dense(1, n, n, 1, 1, 64)) for n in (1, 7, 63, 64, 65)),
    *(Case(f"113 x 203, width {width}", dense(1, 113, 203, 1, 1, width)) for width in WIDTHS),
    Case("113 x 203, all see all, three heads a key head", dense(1, 113, 203, 3, 1, 64), {"causal": False}),
    Case("203 x 113: some see nothing", dense(1, 203, 113, 1, 1, 64)),
    Case("ragged pack, empty rows", packed((0, 3, 64, 0, 129, 1, 65, 0, 0, 40), 2, 1, 64)),
    *(Case(f"window {window}", dense(1, 200, 200, 1, 1, 64), {"window": window}) for window in (1, 9, 64, 130)),
    Case("ragged pack, window", packed((70, 0, 200, 9), 1, 1, 128), {"window": 33}),
)
DROPPED = (
    Case("dropout", dense(1, 113, 203, 2, 1, 64), {"dropout_p": 0.3, "dropout_seed": 5}),
    Case("dropout, ragged pack, width 128", packed((0, 70, 1, 129), 1, 1, 128),
         {"dropout_p": 0.3, "dropout_seed": -9}),
    Case("dropout, window", dense(1, 150, 150, 1, 1, 80), {"dropout_p": 0.3, "dropout_seed": 2, "window": 20}),
)
LONG = (
    Case("length 1023", dense(1, 1023, 1023, 1, 1, 64)),
    Case("length 2048", dense(1, 2048, 2048, 1, 1, 64)),
    Case("length 2048, window 256", dense(1, 2048, 2048, 1, 1, 128), {"window": 256}),
)


def name_of(case: Case) -> str:
    return case.name


def judge(case: Case, dtype: torch.dtype, architecture: int) -> None:
    suite = test_attention.TestAttention()
    suite.require_kernels()
    inputs = case.inputs(New(dtype))
    with simt.executing(architecture=architecture, sites=True) as run:
        results = suite.evaluate(suite.op, inputs, case)
    suite.judge_results(results, *suite.references(inputs, case), case, dtype)
    for direction in ("forward", "backward"):
        assert any(f"{PATHS[architecture]}_{direction}" in site.where for site in run.sites)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", SHAPES, ids=name_of)
def test_shapes(case: Case, architecture: int) -> None:
    judge(case, torch.bfloat16, architecture)


@pytest.mark.parametrize("case", DROPPED, ids=name_of)
def test_dropout(case: Case) -> None:
    judge(case, torch.float16, 80)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", LONG, ids=name_of)
def test_long_sequences(case: Case, architecture: int) -> None:
    judge(case, torch.bfloat16, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case("length 2048", dense(1, 2048, 2048, 1, 1, 64))], ids=name_of)
def test_a_long_sequence_in_float32(case: Case) -> None:
    """Sums over two thousand rows on CUDA cores, beside plain PyTorch's."""
    suite = test_attention.TestAttention()
    suite.require_kernels()
    inputs = case.inputs(New(torch.float32))
    suite.judge_results(suite.evaluate_emulated(inputs, case), *suite.references(inputs, case), case, torch.float32)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bounds", [(0, 300), (10, 12), (2, 40, 41), (-7, 30, 99)])
def test_bounds_that_do_not_span_the_rows(bounds: tuple[int, ...], architecture: int) -> None:
    """The device cannot refuse them: they are cut to the rows there are, and what they leave out is not written."""
    test_attention.TestAttention().require_kernels()
    torch.manual_seed(0)
    rows, width = 50, 64
    x = torch.randn(rows, 1, width).bfloat16()
    with simt.executing(architecture=architecture):
        out = attention(x, x, x, cu_seqlens=torch.tensor(bounds, dtype=torch.int32))
    cut = [min(max(bound, 0), rows) for bound in bounds]
    for begin, end in zip(cut, cut[1:], strict=False):
        part: Tensor = x[begin:end]
        with simt.executing(architecture=architecture):
            alone = attention(part, part, part, cu_seqlens=torch.tensor([0, end - begin], dtype=torch.int32))
        assert same_bits(out[begin:end], alone)
    assert out[: cut[0]].isnan().all() and out[cut[-1]:].isnan().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_many_sequences(architecture: int) -> None:
    """Forty short ones beside long ones: each is found by its block, and computed as if it were alone."""
    test_attention.TestAttention().require_kernels()
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(0, 12, (40,), generator=generator)
    lengths[[0, 17, 39]] = torch.tensor([140, 129, 128])
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).int()
    x = torch.randn(int(bounds[-1]), 1, 64, generator=generator).half()
    with simt.executing(architecture=architecture):
        out = attention(x, x, x, cu_seqlens=bounds)
        for begin, end in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
            part = x[begin:end]
            alone = attention(part[None], part[None], part[None])[0] if end > begin else part
            assert same_bits(out[begin:end], alone), f"rows {begin} to {end}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nan_stays_within_its_sequence(architecture: int) -> None:
    """NaN and infinities in the sequences around change no bit, in tiles that two sequences share."""
    test_attention.TestAttention().require_kernels()
    torch.manual_seed(0)
    x = torch.randn(90, 1, 64).bfloat16()
    bounds = torch.tensor([0, 30, 71, 90], dtype=torch.int32)
    poisoned = x.clone()
    poisoned[:30], poisoned[71:] = torch.nan, torch.inf
    gradients = []
    for y in (x, poisoned):
        leaf = y.clone().requires_grad_()
        with simt.executing(architecture=architecture):
            out = attention(leaf, leaf, leaf, cu_seqlens=bounds)
            grad, = torch.autograd.grad(out, leaf, torch.ones_like(out))
        gradients.append(torch.cat([out.detach()[30:71], grad[30:71]]))
    assert same_bits(*gradients)
