"""Which lane holds which element, as lists taken from the PTX ISA's tables; nothing here looks at the C++ code.

PTX ISA 9.0: "Matrix Fragments for mma.m16n8k16 with floating point type" (figures and row / col formulas for a0 ... a7,
b0 ... b3, c0 ... c3), "Warp-level matrix load instruction: ldmatrix" (the figure of the 8 x 8 fragment).
"""

from __future__ import annotations

# Of lane 4 g + t: element i as (row, column), rows and columns as (times g, times t, plus).
A_ROWS = [(1, 0, 0), (1, 0, 0), (1, 0, 8), (1, 0, 8), (1, 0, 0), (1, 0, 0), (1, 0, 8), (1, 0, 8)]
A_COLUMNS = [(0, 2, 0), (0, 2, 1), (0, 2, 0), (0, 2, 1), (0, 2, 8), (0, 2, 9), (0, 2, 8), (0, 2, 9)]
B_ROWS = [(0, 2, 0), (0, 2, 1), (0, 2, 8), (0, 2, 9)]
B_COLUMNS = [(1, 0, 0), (1, 0, 0), (1, 0, 0), (1, 0, 0)]
C_ROWS = [(1, 0, 0), (1, 0, 0), (1, 0, 8), (1, 0, 8)]
C_COLUMNS = [(0, 2, 0), (0, 2, 1), (0, 2, 0), (0, 2, 1)]

# ldmatrix without transposition: lanes 0 to 3 hold row 0, two elements each; lanes 4 to 7 row 1; and so on.
EIGHT_BY_EIGHT = [
    [(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4), (0, 5)], [(0, 6), (0, 7)],
    [(1, 0), (1, 1)], [(1, 2), (1, 3)], [(1, 4), (1, 5)], [(1, 6), (1, 7)],
    [(2, 0), (2, 1)], [(2, 2), (2, 3)], [(2, 4), (2, 5)], [(2, 6), (2, 7)],
    [(3, 0), (3, 1)], [(3, 2), (3, 3)], [(3, 4), (3, 5)], [(3, 6), (3, 7)],
    [(4, 0), (4, 1)], [(4, 2), (4, 3)], [(4, 4), (4, 5)], [(4, 6), (4, 7)],
    [(5, 0), (5, 1)], [(5, 2), (5, 3)], [(5, 4), (5, 5)], [(5, 6), (5, 7)],
    [(6, 0), (6, 1)], [(6, 2), (6, 3)], [(6, 4), (6, 5)], [(6, 6), (6, 7)],
    [(7, 0), (7, 1)], [(7, 2), (7, 3)], [(7, 4), (7, 5)], [(7, 6), (7, 7)],
]  # fmt: skip

Places = list[tuple[int, int]]


def places(rows: list[tuple[int, int, int]], columns: list[tuple[int, int, int]], lane: int) -> Places:
    """(row, column) of each element that a lane holds, in the order of its registers, low half first."""
    g, t = divmod(lane, 4)
    return [
        (row_g * g + row_t * t + row, column_g * g + column_t * t + column)
        for (row_g, row_t, row), (column_g, column_t, column) in zip(rows, columns, strict=True)
    ]


def a_places(lane: int) -> Places:
    return places(A_ROWS, A_COLUMNS, lane)


def b_places(lane: int) -> Places:
    return places(B_ROWS, B_COLUMNS, lane)


def c_places(lane: int) -> Places:
    return places(C_ROWS, C_COLUMNS, lane)


def matrix_places(lane: int, transposed: bool) -> Places:
    """The two elements of an 8 x 8 matrix that a lane holds; with .trans it is as if the matrix had been transposed."""
    found = EIGHT_BY_EIGHT[lane]
    return [(column, row) for row, column in found] if transposed else found
