"""What each micro-kernel must answer, worked out from the documents in plain Python.

Sources: CUDA C++ Programming Guide ("Warp Shuffle Functions", "Warp Vote Functions", "Warp Match Functions",
"Synchronization Functions", "Atomic Functions"); PTX ISA 9.0 for matrices, asynchronous copies and conversions; Salmon
et al. 2011 for Philox. Floats that are not exact are compared by the tolerance of their case.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from benchmarks.microkernels.cases import CASES, Case
from python_tests.simt import fragments, wgmma_layouts
from python_tests.simt.async_answers import ASYNC_ANSWERS

Words = Sequence[int]
WORD = 2**32
LANES = range(32)


def answer(case: Case) -> list[int]:
    """The words that the micro-kernel must write."""
    return [word % WORD for word in ANSWERS[case.name](case.words)]


def as_float(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word))[0])


def word_of(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def halves(words: Words) -> list[int]:
    """16-bit numbers, two a word."""
    return [half for word in words for half in (word & 0xFFFF, word >> 16)]


def paired(numbers: Sequence[int]) -> list[int]:
    return [low | high << 16 for low, high in zip(numbers[::2], numbers[1::2], strict=True)]


def signed(word: int, bits: int = 32) -> int:
    return word - 2**bits if word >= 2 ** (bits - 1) else word


# Lanes.


def shuffle_up(words: Words) -> list[int]:
    return [words[lane - delta if lane >= delta else lane] for delta in (1, 3, 16) for lane in LANES]


def shuffle_down(words: Words) -> list[int]:
    return [words[lane + delta if lane + delta < 32 else lane] for delta in (1, 3, 16) for lane in LANES]


def votes(words: Words) -> list[int]:
    found: list[int] = []
    for bit in range(3):
        yes = [word >> bit & 1 for word in words]
        found += [sum(1 << lane for lane in LANES if yes[lane])] * 32 + [int(any(yes))] * 32 + [int(all(yes))] * 32
    return found


def match(words: Words) -> list[int]:
    return [sum(1 << other for other in LANES if words[other] == words[lane]) for lane in LANES]


def bits(words: Words) -> list[int]:
    lowest = [(word & -word).bit_length() for word in words]
    return [*(word.bit_count() for word in words), *lowest, *(32 - word.bit_length() for word in words)]


def block_votes(words: Words) -> list[int]:
    found: list[int] = []
    for bit in range(3):
        count = sum(word >> bit & 1 for word in words)
        found += [int(count > 0)] * 64 + [count] * 64
    return found


# Matrices.


def load_matrix(matrices: int, transposed: bool) -> Callable[[Words], list[int]]:
    def load(words: Words) -> list[int]:
        elements = halves(words[:128])
        rows = [elements[8 * row : 8 * row + 8] for row in range(32)]
        found = []
        for m in range(matrices):
            matrix = [rows[words[128 + 8 * m + r]] for r in range(8)]
            for lane in LANES:
                (r0, c0), (r1, c1) = fragments.matrix_places(lane, transposed)
                found.append(matrix[r0][c0] | matrix[r1][c1] << 16)
        return found

    return load


def store_matrix(matrices: int, transposed: bool) -> Callable[[Words], list[int]]:
    def store(words: Words) -> list[int]:
        rows = [[0] * 8 for _ in range(32)]
        for m in range(matrices):
            for lane in LANES:
                held = halves([words[32 * m + lane]])
                for (row, column), element in zip(fragments.matrix_places(lane, transposed), held, strict=True):
                    rows[words[32 * matrices + 8 * m + row]][column] = element
        return paired([element for row in rows for element in row])

    return store


def number(kind: str, half: int) -> float:
    """The value of 16 bits."""
    if kind == "bfloat16":
        return as_float(half << 16)
    return float(struct.unpack("<e", struct.pack("<H", half))[0])


def multiply_registers(kind: str) -> Callable[[Words], list[int]]:
    def multiply(words: Words) -> list[int]:
        a = [[0.0] * 16 for _ in range(16)]
        b = [[0.0] * 8 for _ in range(16)]
        for lane in LANES:
            held = halves([words[32 * i + lane] for i in range(4)])
            for (row, column), half in zip(fragments.a_places(lane), held, strict=True):
                a[row][column] = number(kind, half)
            held = halves([words[128 + 32 * i + lane] for i in range(2)])
            for (row, column), half in zip(fragments.b_places(lane), held, strict=True):
                b[row][column] = number(kind, half)
        found = [0] * 128
        for lane in LANES:
            for i, (row, column) in enumerate(fragments.c_places(lane)):
                start = as_float(words[192 + 32 * i + lane])
                found[32 * i + lane] = word_of(start + sum(a[row][k] * b[k][column] for k in range(16)))
        return found

    return multiply


def multiply_tiles(kind: str) -> Callable[[Words], list[int]]:
    def multiply(words: Words) -> list[int]:
        a = [number(kind, half) for half in halves(words[:128])]
        b = [number(kind, half) for half in halves(words[128:])]
        return [
            word_of(sum(a[16 * row + k] * b[8 * k + column] for k in range(16)))
            for row in range(16)
            for column in range(8)
        ]

    return multiply


def wgmma(name: str) -> Callable[[Words], list[int]]:
    """Every thread's digests of its sums; which begin as element i - thread where the kernel adds to them."""
    kind, columns, _, _ = name.split("_")
    adds = name not in WITHOUT_SUMS

    def multiply(words: Words) -> list[int]:
        (a_words, b_words), lies = words[:2], (words[2:5], words[5:8])
        images = halves(words[8 : 8 + a_words]), halves(words[8 + a_words : 8 + a_words + b_words])
        a, b = (operand(kind, name.split("_")[2 + i], images[i], lies[i], (64, int(columns))[i]) for i in range(2))
        product = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in b] for row in a]
        found = [0] * 256
        for thread in range(128):
            places = wgmma_layouts.sum_places(thread, int(columns))
            sums = [product[row][column] + adds * (i - thread) for i, (row, column) in enumerate(places)]
            for half in range(2):
                part = sums[half * len(sums) // 2 : (half + 1) * len(sums) // 2]
                found[128 * half + thread] = sum((i + 1) * int(value) for i, value in enumerate(part))
        return found

    return multiply


def operand(kind: str, tile: str, image: Sequence[int], lies: Words, extent: int) -> list[list[float]]:
    """Rows of M or N, 16 elements of k each: out of the bytes of a tile, or of every thread's registers."""
    if tile == "registers":
        rows = [[0.0] * 16 for _ in range(64)]
        for thread in range(128):
            held = image[8 * thread : 8 * thread + 8]
            for (row, column), half in zip(wgmma_layouts.a_places(thread), held, strict=True):
                rows[row][column] = number(kind, half)
        return rows
    _, leading, stride = lies
    places = wgmma_layouts.byte_places(tile[0] != "k", int(tile[1:]), leading, stride, extent)
    return [[number(kind, image[place // 2]) for place in row] for row in places]


WITHOUT_SUMS = {f"bfloat16_64_{tiles}" for tiles in ("k0_k0", "k32_k64", "k128_k128", "m0_n0", "m32_n64", "m128_n128")}

# Copies.


def copied(size: int) -> Callable[[Words], list[int]]:
    """Lane l's words at the place of lane 31 - l."""
    return lambda words: [words[size * (31 - place // size) + place % size] for place in range(32 * size)]


def zero_filled(size: int) -> Callable[[Words], list[int]]:
    def fill(words: Words) -> list[int]:
        memory = bytearray(struct.pack(f"<{32 * size}I", *words))
        for lane in LANES:
            kept = lane % (4 * size + 1)
            memory[4 * size * lane + kept : 4 * size * (lane + 1)] = bytes(4 * size - kept)
        return list(struct.unpack(f"<{32 * size}I", memory))

    return fill


# Order.


def applied(
    apply: Callable[[int, int], int], wide: bool = False, is_signed: bool = False
) -> Callable[[Words], list[int]]:
    """Eight places, to which lane l applies its value at place l % 8."""
    size = 64 if wide else 32

    def run(words: Words) -> list[int]:
        values = [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)] if wide else list(words)
        if is_signed:
            values = [signed(value, size) for value in values]
        places = values[:8]
        for lane in LANES:
            places[lane % 8] = apply(places[lane % 8], values[8 + lane])
        found = [place % 2**size for place in places]
        return [part for place in found for part in (place % WORD, place >> 32)] if wide else found

    return run


def add_floats(words: Words) -> list[int]:
    values = [as_float(word) for word in words]
    return [word_of(values[place] + sum(values[8 + lane] for lane in LANES if lane % 8 == place)) for place in range(8)]


def exclusive_or(words: Words) -> list[int]:
    total = 0
    for word in words:
        total ^= word
    return [total]


# Numbers.


def narrowed(kind: str, word: int) -> int:
    """To nearest, ties to even; NaN is 0x7fff (PTX ISA, cvt: "NaN results are canonical")."""
    value = as_float(word)
    if math.isnan(value):
        return 0x7FFF
    if kind == "bfloat16":
        low, up = word & 0xFFFF, word >> 16
        return up + int(low > 0x8000 or (low == 0x8000 and up & 1))
    try:
        return int(struct.unpack("<H", struct.pack("<e", value))[0])
    except OverflowError:
        return 0xFC00 if value < 0 else 0x7C00


def widened(kind: str, half: int) -> int:
    """bfloat16 is the high half of a float, NaN too; another NaN becomes 0x7fffffff."""
    if kind == "bfloat16":
        return half << 16
    value = number(kind, half)
    return 0x7FFFFFFF if math.isnan(value) else word_of(value)


def packed(kind: str) -> Callable[[Words], list[int]]:
    return lambda words: [
        narrowed(kind, word) | narrowed(kind, words[(place + 1) % len(words)]) << 16 for place, word in enumerate(words)
    ]


def of_floats(function: Callable[[float], float]) -> Callable[[Words], list[int]]:
    def run(words: Words) -> list[int]:
        return [word_of_double(function(as_float(word))) for word in words]

    return run


def word_of_double(value: float) -> int:
    """Rounded to float; what a float cannot hold becomes infinity, and below its normal numbers 0."""
    if abs(value) > 3.4028235677973366e38:
        return word_of(math.copysign(math.inf, value))
    return word_of(value) if abs(value) >= 2.0**-126 else word_of(math.copysign(0.0, value))


def philox(words: Words) -> list[int]:
    found = []
    for thread in LANES:
        key_low, key_high, c0, c1, c2, c3 = words[6 * thread : 6 * thread + 6]
        for _ in range(10):
            first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
            c0, c1, c2, c3 = (second >> 32) ^ c1 ^ key_low, second % WORD, (first >> 32) ^ c3 ^ key_high, first % WORD
            key_low, key_high = (key_low + 0x9E3779B9) % WORD, (key_high + 0xBB67AE85) % WORD
        found += [c0, c1, c2, c3, uniform(c0), uniform(~c0 % WORD)]
    return found


def uniform(word: int) -> int:
    """(word + 1/2) / 2^32 in float arithmetic: two roundings."""
    return word_of(as_float(word_of(as_float(word_of(float(word))) + 0.5)) * 2.0**-32)


def _answers() -> dict[str, Callable[[Words], list[int]]]:
    found: dict[str, Callable[[Words], list[int]]] = {
        "shuffle": lambda words: [words[words[32 + lane]] for lane in LANES],
        "shuffle_xor": lambda words: [words[lane ^ 1 << i] for i in range(5) for lane in LANES],
        "shuffle_up": shuffle_up,
        "shuffle_down": shuffle_down,
        "shuffle_64_bits": lambda words: [words[2 * (lane ^ 7) + half] for lane in LANES for half in range(2)],
        "shuffle_in_halves": lambda words: [words[lane ^ 5] for lane in LANES],
        "votes": votes,
        "match": match,
        "bits": bits,
        "block_votes": block_votes,
        "cp_async_16_second_level": copied(4),
        "cp_async_groups": list,
        "atomic_add_uint32": applied(lambda a, b: a + b),
        "atomic_add_int32": applied(lambda a, b: a + b, is_signed=True),
        "atomic_add_uint64": applied(lambda a, b: a + b, wide=True),
        "atomic_add_float": add_floats,
        "atomic_max_uint32": applied(max),
        "atomic_max_int32": applied(max, is_signed=True),
        "atomic_max_uint64": applied(max, wide=True),
        "atomic_min_uint32": applied(min),
        "atomic_min_int32": applied(min, is_signed=True),
        "atomic_or": applied(lambda a, b: a | b),
        "atomic_count": lambda _: [128, *[WORD - 1] * 4],
        "atomic_exchange": exclusive_or,
        "publish": lambda words: [*words, *(2 * word for word in words), 1],
        "add_in_order": lambda words: [*words, 4, sum(words), 4],
        "named_barrier": lambda words: list(words[::-1]),
        "last_block": lambda words: [*words, sum(words), 1],
        "math_exp": of_floats(math.exp),
        "math_log": of_floats(math.log),
        "math_log1p": of_floats(math.log1p),
        "fast_exp2": of_floats(math.exp2),
        "fast_exp": of_floats(math.exp),
        "fast_log": of_floats(math.log),
        "fast_tanh": of_floats(math.tanh),
        "fast_rsqrt": of_floats(lambda x: 1 / math.sqrt(x)),
        "fast_divide": of_floats(lambda x: x / 3),
        "philox": philox,
    }
    for count in (1, 2, 4):
        for suffix, transposed in (("", False), ("_trans", True)):
            found[f"ldmatrix_x{count}{suffix}"] = load_matrix(count, transposed)
            found[f"stmatrix_x{count}{suffix}"] = store_matrix(count, transposed)
        found[f"cp_async_{4 * count}"] = copied(count)
        found[f"cp_async_{4 * count}_zero_fill"] = zero_filled(count)
    for name in CASES:
        if name.startswith("wgmma_"):
            found[name] = wgmma(name.removeprefix("wgmma_"))
    for kind in ("bfloat16", "half"):
        found[f"mma_{kind}"] = multiply_registers(kind)
        found[f"tile_{kind}"] = multiply_tiles(kind)
        found[f"to_{kind}"] = lambda words, kind=kind: [narrowed(kind, word) for word in words]  # type: ignore[misc]
        found[f"from_{kind}"] = lambda words, kind=kind: [widened(kind, half) for half in halves(words)]  # type: ignore[misc]
        found[f"pack_{kind}"] = packed(kind)
    return found


ANSWERS = _answers() | ASYNC_ANSWERS
