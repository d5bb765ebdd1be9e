"""Where wgmma's elements stand, as lists taken from the PTX ISA's tables; nothing here looks at the C++ code.

PTX ISA 9.0, "Asynchronous Warpgroup Level Matrix Instructions": "Canonical Layouts" (shapes and strides of both
majornesses and all swizzling modes), the figures of the register fragments of wgmma.mma_async.m64nNk16.
"""

from __future__ import annotations

from dataclasses import dataclass

from python_tests.simt import fragments

T = 8  # 16-bit elements of 128 bits: what the tables call T
LEADING, STRIDE, REPEATS = "LBO", "SBO", "m"
Mode = tuple[tuple[int | str, ...], tuple[int | str, ...]]


@dataclass(frozen=True)
class Canonical:
    """One row of the table: extents and strides of M or N, then of K; which address bits the swizzle exchanges."""

    mn: Mode
    k: Mode
    swizzle: tuple[int, int, int]  # bits, base, shift


# By (is M or N dense, bytes of the swizzle). K is 16 elements: the tables' k is 2 where M or N is dense, else 1.
CANONICAL = {
    (True, 0): Canonical(((T, 1, REPEATS), (1, T, STRIDE)), ((8, 2), (T, LEADING)), (0, 4, 3)),
    (True, 32): Canonical(((T, 2, REPEATS), (1, T, LEADING)), ((8, 2), (2 * T, STRIDE)), (1, 4, 3)),
    (True, 64): Canonical(((T, 4, REPEATS), (1, T, LEADING)), ((8, 2), (4 * T, STRIDE)), (2, 4, 3)),
    (True, 128): Canonical(((T, 8, REPEATS), (1, T, LEADING)), ((8, 2), (8 * T, STRIDE)), (3, 4, 3)),
    (False, 0): Canonical(((8, REPEATS), (T, STRIDE)), ((T, 2), (1, LEADING)), (0, 4, 3)),
    (False, 32): Canonical(((8, REPEATS), (2 * T, STRIDE)), ((T, 2), (1, T)), (1, 4, 3)),
    (False, 64): Canonical(((8, REPEATS), (4 * T, STRIDE)), ((T, 2), (1, T)), (2, 4, 3)),
    (False, 128): Canonical(((8, REPEATS), (8 * T, STRIDE)), ((T, 2), (1, T)), (3, 4, 3)),
}


def along(mode: Mode, index: int, leading: int, stride: int) -> int:
    """Where the index-th element of a mode stands, in elements; the first extent runs fastest. Strides in bytes."""
    extents, strides = mode
    place = 0
    for extent, step in zip(extents, strides, strict=True):
        digit = index if extent == REPEATS else index % int(extent)
        index = 0 if extent == REPEATS else index // int(extent)
        step = {LEADING: leading // 2, STRIDE: stride // 2}.get(str(step), step)
        place += digit * int(step)
    assert index == 0
    return place


def swizzled(address: int, bits: int, base: int, shift: int) -> int:
    """The `bits` bits of a byte's address from `base` are exchanged by those `shift` further up."""
    mask = (1 << bits) - 1
    return address ^ (address >> (base + shift) & mask) << base


def byte_places(
    mn_dense: bool, swizzle: int, leading: int, stride: int, extent: int, start: int = 0
) -> list[list[int]]:
    """Of element (i of M or N, k): its first byte, in a tile whose pattern begins at byte 0."""
    canonical = CANONICAL[mn_dense, swizzle]
    return [
        [
            swizzled(
                start + 2 * (along(canonical.mn, i, leading, stride) + along(canonical.k, k, leading, stride)),
                *canonical.swizzle,
            )
            for k in range(16)
        ]
        for i in range(extent)
    ]


# The sums of thread 32 w + 4 g + t of the warpgroup: element i as (row, column); repeated every 8 columns of N.
SUM_ROWS = [(1, 0, 0), (1, 0, 0), (1, 0, 8), (1, 0, 8)]
SUM_COLUMNS = [(0, 2, 0), (0, 2, 1), (0, 2, 0), (0, 2, 1)]


def sum_places(thread: int, columns: int) -> fragments.Places:
    warp, lane = divmod(thread, 32)
    first = fragments.places(SUM_ROWS, SUM_COLUMNS, lane)
    return [(16 * warp + row, 8 * j + column) for j in range(columns // 8) for row, column in first]


def a_places(thread: int) -> fragments.Places:
    """Of A in registers: four registers of two elements, the low half first, as mma's in rows 16 w to 16 w + 15."""
    warp, lane = divmod(thread, 32)
    return [(16 * warp + row, column) for row, column in fragments.a_places(lane)]
