"""What the micro-kernels of sm_90's asynchronous words must answer (csrc/microkernels/async_cuda.cu).

Source: PTX ISA 9.0, "Tensors" (boxes, out-of-bound elements, swizzling modes), "mbarrier", "cp.reduce.async.bulk".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

Words = Sequence[int]
COLUMNS, ROWS, TILE_ROWS = 40, 24, 16

# For rows of so many words: which piece of 4 words piece p of row r changes places with, by the table of its mode.
SWIZZLES = {
    0: lambda p, r: p,
    8: lambda p, r: p ^ (r // 4) % 2,
    16: lambda p, r: p ^ (r // 2) % 4,
    32: lambda p, r: p ^ r % 8,
}


def place(row: int, column: int, width: int, swizzle: int) -> int:
    """Where a tile's word lies in shared memory."""
    return row * width + 4 * SWIZZLES[swizzle](column // 4, row) + column % 4


def loaded(width: int, swizzle: int) -> Callable[[Words], list[int]]:
    def answer(words: Words) -> list[int]:
        found = [0] * (width * TILE_ROWS)
        for i in range(TILE_ROWS):
            for j in range(width):
                row, column = i - 2, j + 12
                if 0 <= row < ROWS and column < COLUMNS:
                    found[place(i, j, width, swizzle)] = words[row * COLUMNS + column]
        return found

    return answer


def loaded_of_four(words: Words) -> list[int]:
    """Rows -2 to 5 of 5, eight words from the fourth on."""
    found = [0] * 64
    for i in range(2, 7):
        for j in range(8):
            found[place(i, j, 8, 8)] = words[240 + 48 * (i - 2) + 16 * 2 + 4 + j]
    return found


def stored(change: Callable[[int], int]) -> Callable[[Words], list[int]]:
    def answer(words: Words) -> list[int]:
        found = [0] * (COLUMNS * ROWS)
        for i in range(3, TILE_ROWS):
            for j in range(COLUMNS - 20):
                found[(i - 3) * COLUMNS + 20 + j] = change(words[place(i, j, 32, 32)])
        return found

    return answer


def doubled(word: int) -> int:
    """Of a float."""
    value: int = struct.unpack("<I", struct.pack("<f", 2 * struct.unpack("<f", struct.pack("<I", word))[0]))[0]
    return value


def phases(words: Words) -> list[int]:
    mine = list(words)
    for _ in range(3):
        mine = [own + other for own, other in zip(mine, reversed(mine), strict=True)]
    return mine


ASYNC_ANSWERS: dict[str, Callable[[Words], list[int]]] = {
    "tensor_load": loaded(32, 0),
    "tensor_load_swizzle_32": loaded(8, 8),
    "tensor_load_swizzle_64": loaded(16, 16),
    "tensor_load_swizzle_128": loaded(32, 32),
    "tensor_load_four_dimensions": loaded_of_four,
    "tensor_store": stored(lambda word: word),
    "tensor_add": stored(doubled),
    "bulk_runs": lambda words: [doubled(word) for word in (*words[32:], *words[:32])],
    "mbarrier_phases": phases,
    "register_budget": lambda words: list(words[::-1]),
}
