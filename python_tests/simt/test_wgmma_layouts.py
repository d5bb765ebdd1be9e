"""wgmma by the emulator: every form and layout against places taken from the PTX ISA's tables."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch

from instructgpt_fast import simt
from python_tests.simt import wgmma_layouts as layouts

MODES = {0: 0, 32: 1, 64: 2, 128: 3}  # bytes of a swizzle -> device::Swizzle
COLUMNS = (64, 80, 96, 128)

pytestmark = pytest.mark.skipif(not simt.available(), reason="the emulator was not built")


@dataclass(frozen=True)
class Tile:
    """How an operand lies: `extent` of M or N by 16 of K, beginning `start` bytes into its tile."""

    mn_dense: bool
    swizzle: int
    leading: int
    stride: int
    extent: int
    start: int = 0

    def places(self) -> torch.Tensor:
        """In 16-bit elements, by (M or N, k)."""
        found = layouts.byte_places(
            self.mn_dense, self.swizzle, self.leading, self.stride, self.extent, self.start
        )
        return torch.tensor(found) // 2

    def image(self, values: torch.Tensor) -> torch.Tensor:
        """Shared memory with `values` (M or N by k) in it, NaN elsewhere, in 32-bit words."""
        places = self.places()
        assert places.unique().numel() == places.numel(), "two elements in one place"
        size = -(-(int(places.max()) + 1) // 8) * 8
        image = torch.full((size,), -1, dtype=torch.int16)
        image[places] = values.view(torch.int16)
        return image.view(torch.int32)

    def words(self) -> list[int]:
        return [MODES[self.swizzle], self.leading, self.stride, self.start]


def dense(mn_dense: bool, swizzle: int, extent: int, start: int = 0, gap: int = 0) -> Tile:
    """The tile without holes, or with `gap` patterns between its parts."""
    row = swizzle or 16
    pattern = 8 * row * (1 + gap)
    if not mn_dense:
        groups = extent // 8
        return Tile(mn_dense, swizzle, 0 if swizzle else groups * pattern, pattern, extent, start)
    atoms = -(-2 * extent // row)
    if swizzle:
        return Tile(mn_dense, swizzle, 2 * pattern, pattern, extent, start)
    return Tile(mn_dense, swizzle, atoms * pattern, pattern, extent, start)


def draw(extent: int, kind: torch.dtype, seed: int) -> torch.Tensor:
    """Integers so small that every sum is exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, (extent, 16), generator=generator).to(kind)


def in_threads(places: list[list[tuple[int, int]]], values: torch.Tensor) -> torch.Tensor:
    """The elements that each thread holds, [128, elements]."""
    index = torch.tensor(places)
    return values[index[..., 0], index[..., 1]]


def multiply(a: torch.Tensor, b: torch.Tensor, tile_a: Tile | None, tile_b: Tile, add: bool) -> None:
    """One product, A in registers without a tile; compares every thread's sums."""
    columns = tile_b.extent
    kept = torch.randint(-99, 100, (64, columns), generator=torch.Generator().manual_seed(3)).float()
    places = [layouts.sum_places(thread, columns) for thread in range(128)]
    if tile_a is None:
        image_a = in_threads([layouts.a_places(t) for t in range(128)], a).contiguous().view(torch.int32).flatten()
    else:
        image_a = tile_a.image(a)
    words = torch.tensor([*(tile_a.words() if tile_a else [0] * 4), *tile_b.words()], dtype=torch.int32)
    with simt.executing(architecture=90):
        found = torch.ops.instructgpt_fast.simt_wgmma_once(
            image_a, tile_b.image(b), in_threads(places, kept).contiguous(), words, columns,
            a.dtype == torch.float16, tile_a is None, tile_a is not None and tile_a.mn_dense, tile_b.mn_dense, add,
        )  # fmt: skip
    expected = a.float() @ b.float().T + (kept if add else 0)
    assert torch.equal(found, in_threads(places, expected))


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_every_form(columns: int, kind: torch.dtype) -> None:
    """Both types, all N, A by tile in both majornesses and by registers, B in both."""
    a, b = draw(64, kind, 1), draw(columns, kind, 2)
    for mn_a, mn_b in itertools.product((False, True, None), (False, True)):
        tile_a = None if mn_a is None else dense(mn_a, 128, 64)
        multiply(a, b, tile_a, dense(mn_b, 32, columns), add=bool(columns % 64))


@pytest.mark.parametrize("swizzle", MODES)
@pytest.mark.parametrize("mn_dense", [False, True], ids=["k_dense", "mn_dense"])
def test_every_layout(swizzle: int, mn_dense: bool) -> None:
    """All swizzles, dense tiles and tiles with holes, both operands."""
    a, b = draw(64, torch.bfloat16, 3), draw(96, torch.bfloat16, 4)
    for gap in (0, 1):
        multiply(a, b, dense(mn_dense, swizzle, 64, gap=gap), dense(False, 128, 96), add=True)
        multiply(a, b, None, dense(mn_dense, swizzle, 96, gap=gap), add=False)


@pytest.mark.parametrize("swizzle", [32, 64, 128])
def test_the_next_elements_of_k_are_32_bytes_further(swizzle: int) -> None:
    """K dense: the descriptor moves on within the rows of the swizzle."""
    a, b = draw(64, torch.bfloat16, 5), draw(64, torch.bfloat16, 6)
    for start in range(0, swizzle, 32):
        multiply(a, b, dense(False, swizzle, 64, start), dense(False, swizzle, 64, start), add=False)
