"""A matrix product by asynchronous copies, ldmatrix and mma: right in every order, wrong when a part is missing."""

from __future__ import annotations

import pytest
import torch

from instructgpt_fast import simt
from python_tests.house.tree import ROOT

SOURCE = "csrc/simt/selftest/ptx_gemm_cuda.cu"
LINES = (ROOT / SOURCE).read_text().splitlines()
RIGHT, SWAPPED_REGISTERS, PLAIN_TILES = range(3)
SHAPES = [(64, 32, 32), (1, 8, 8), (70, 40, 72), (130, 64, 104)]
SMALL = (40, 24, 72)  # three steps, edges everywhere

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


def operands(m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(m + n + k)
    draw = [torch.randn(size, generator=generator).bfloat16() for size in ((m, k), (k, n))]
    return draw[0], draw[1]


def product(a: torch.Tensor, b: torch.Tensor, form: int = RIGHT) -> torch.Tensor:
    result: torch.Tensor = torch.ops.instructgpt_fast.simt_ptx_gemm(a, b, form)
    return result


def is_right(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Within k roundings of f32 of the product in float64."""
    bound = a.shape[1] * 2.0**-24 * (a.double().abs() @ b.double().abs())
    return bool(((c.double() - a.double() @ b.double()).abs() <= bound).all())


def line_of(text: str) -> str:
    """The only line with this text, as mutations name places."""
    found = [number for number, line in enumerate(LINES, start=1) if text in line]
    assert len(found) == 1, f"{text!r} is on lines {found}"
    return f"ptx_gemm_cuda.cu:{found[0]}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(shape: tuple[int, int, int]) -> None:
    a, b = operands(*shape)
    with simt.executing():
        assert is_right(product(a, b), a, b)


@pytest.mark.parametrize("schedule", ["forward", "reverse", "random", "preempting"])
@pytest.mark.parametrize("copies", ["lazy", "eager", "random"])
def test_every_order_gives_equal_bits(schedule: str, copies: str) -> None:
    a, b = operands(*SMALL)
    with simt.executing():
        expected = product(a, b)
    with simt.executing(schedule=schedule, copies=copies, seed=11):
        assert torch.equal(product(a, b), expected)


def test_swapped_registers_give_another_product() -> None:
    a, b = operands(*SMALL)
    with simt.executing():
        assert not is_right(product(a, b, SWAPPED_REGISTERS), a, b)


@pytest.mark.parametrize("kind, text, rule", [
    ("drop_wait", "ptx::cp_async_wait<1>();", "before it was waited for"),
    ("drop_barrier", "// this step's tiles have arrived", "race between threads on tiles_"),
    ("drop_barrier", "// this step's tiles have been read", "race between threads on tiles_"),
])  # fmt: skip
@pytest.mark.parametrize("schedule", ["forward", "random"])
def test_what_is_left_out_is_found(kind: str, text: str, rule: str, schedule: str) -> None:
    a, b = operands(*SMALL)
    mutation = simt.Mutation(kind, site=line_of(text))
    with simt.executing(schedule=schedule, mutation=mutation) as run, pytest.raises(simt.SimtError, match=rule):
        product(a, b)
    assert run.mutation_applied


def shared_cost(form: int, text: str) -> tuple[int, int]:
    """Wavefronts, and the least, of the shared-memory accesses on one line."""
    a, b = operands(*SMALL)
    with simt.executing(accounting=True) as run:
        product(a, b, form)
    places = [place for place in run.launches[0].places if place.space == "shared" and line_of(text) in place.where]
    assert places
    return sum(place.cost for place in places), sum(place.ideal for place in places)


@pytest.mark.parametrize("text", ["ptx::ldmatrix<4>(", "ptx::ldmatrix<2, true>("])
def test_swizzled_tiles_have_no_bank_conflicts(text: str) -> None:
    cost, ideal = shared_cost(RIGHT, text)
    assert cost == ideal
    cost, ideal = shared_cost(PLAIN_TILES, text)
    assert cost == 4 * ideal, "8 rows of 64 bytes: the same chunk of four of them lies in the same banks"


def test_traffic() -> None:
    """Each element of A is copied once for each 32 columns of C, each of B once for each 64 rows; C is written once."""
    m, n, k = SMALL
    a, b = operands(m, n, k)
    with simt.executing(accounting=True) as run:
        product(a, b)
    buffers = run.launches[0].buffers
    assert buffers["a"].loaded_bytes == 2 * m * k * -(-n // 32)
    assert buffers["b"].loaded_bytes == 2 * k * n * -(-m // 64)
    assert buffers["output 0"].stored_bytes == 4 * m * n
