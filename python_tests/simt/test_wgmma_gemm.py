"""A matrix product by tensor copies and wgmma: right in every order, and no word of it can be broken unnoticed."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast import simt
from python_tests.house.tree import ROOT

SOURCE = "csrc/simt/selftest/wgmma_gemm_cuda.cu"
LINES = (ROOT / SOURCE).read_text().splitlines()
SHAPES = [(128, 128, 64), (1, 8, 8), (130, 136, 72), (70, 40, 264)]
SMALL = (70, 104, 264)  # one block, five steps: stages come round twice, both consumers and both halves of B, edges

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def operands(m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(m + n + k)
    draw = [torch.randn(size, generator=generator).bfloat16() for size in ((m, k), (k, n))]
    return draw[0], draw[1]


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.instructgpt_fast.simt_wgmma_gemm(a, b)
    return result


def is_right(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Within k roundings of f32 of the product in float64."""
    bound = a.shape[1] * 2.0**-24 * (a.double().abs() @ b.double().abs())
    return bool(((c.double() - a.double() @ b.double()).abs() <= bound).all())


def line_of(place: str) -> str:
    return LINES[int(place.rpartition(":")[2]) - 1].strip()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(shape: tuple[int, int, int]) -> None:
    a, b = operands(*shape)
    with simt.executing(architecture=90):
        assert is_right(product(a, b), a, b)


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random", "preempting"])
@pytest.mark.parametrize("copies", ["lazy", "eager", "random"])
def test_every_order_gives_equal_bits(schedule: str, copies: str) -> None:
    a, b = operands(*SMALL)
    with simt.executing(architecture=90):
        expected = product(a, b)
    with simt.executing(architecture=90, schedule=schedule, copies=copies, seed=11):
        assert torch.equal(product(a, b), expected)


def test_accounts() -> None:
    """Each block brings its rows of A and columns of B once; a consumer makes four products of every step."""
    m, n, k = SMALL
    a, b = operands(m, n, k)
    with simt.executing(architecture=90, accounting=True) as run:
        product(a, b)
    (launch,) = run.launches
    blocks = -(-m // 128) * -(-n // 128)
    assert launch.words["wgmma"] == blocks * -(-k // 64) * 4 * 2 * 128
    assert launch.buffers["a"].loaded_bytes == 2 * m * k * -(-n // 128)
    assert launch.buffers["b"].loaded_bytes == 2 * k * n * -(-m // 128)
    assert launch.buffers["output 0"].stored_bytes == 4 * m * n


# What may be broken unnoticed, and why.
EQUIVALENT: dict[tuple[str, str], str] = {}


def test_every_broken_word_is_found() -> None:
    a, b = operands(*SMALL)
    with simt.executing(architecture=90, sites=True) as clean:
        product(a, b)
    sites = [site for site in clean.sites if SOURCE in site.where]
    kinds = {site.kind for site in sites}
    assert kinds >= {"drop_commit", "drop_fence", "drop_product", "drop_wait", "shift_tile", "wrong_stride"}
    unnoticed = []
    for site in sites:
        mutation = simt.Mutation(site.kind, site=site.where)
        try:
            with simt.executing(architecture=90, mutation=mutation) as run:
                found = not is_right(product(a, b), a, b)
        except simt.SimtError:
            found = True
        assert run.mutation_applied, f"{site.kind} at {site.where} was not applied"
        expected = any(site.kind == kind and text in line_of(site.where) for kind, text in EQUIVALENT)
        if found == expected:
            unnoticed.append(f"{site.kind}: {line_of(site.where)}" + (" (listed as equivalent)" if expected else ""))
    assert not unnoticed, "\n".join(unnoticed)
