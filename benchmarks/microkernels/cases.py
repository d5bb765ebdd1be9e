"""What each micro-kernel is given: words that are the same on every machine, integers where the instruction allows.

A case names its kernel (csrc/microkernels/*_cuda.cu says what the words mean), how its outputs are compared, and which
GPUs have its instruction.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Words = list[int]

NUMBERS = 128  # inputs of the kernels in numbers_cuda.cu


@dataclass(frozen=True)
class Case:
    """One micro-kernel with its input. relative, absolute: 0 asks for equal bits, else outputs are floats so near."""

    name: str
    words: tuple[int, ...]
    relative: float = 0.0
    absolute: float = 0.0
    capability: int = 80  # the first that has it
    only: bool = False  # and no later one


def mixed(count: int, seed: int) -> Words:
    """Words without a pattern: the first outputs of a linear congruential generator, high bits folded in."""
    state, words = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        words.append((state >> 33 ^ state >> 11) % 2**32)
    return words


def small(count: int, seed: int, low: int = -8, high: int = 8) -> Words:
    """Integers in [low, high], negative ones too."""
    return [low + word % (high - low + 1) for word in mixed(count, seed)]


def float_words(values: Iterable[float]) -> Words:
    return [struct.unpack("<I", struct.pack("<f", value))[0] for value in values]


def bfloat16_words(values: Iterable[float]) -> Words:
    """The high halves of floats that bfloat16 holds exactly."""
    words = float_words(values)
    assert not any(word & 0xFFFF for word in words)
    return [word >> 16 for word in words]


def half_words(values: Iterable[float]) -> Words:
    return [struct.unpack("<H", struct.pack("<e", value))[0] for value in values]


def pairs(halves: Words) -> Words:
    """16-bit numbers two a word, the first in the low half."""
    return [low | high << 16 for low, high in zip(halves[::2], halves[1::2], strict=True)]


def rows_and_pointers(seed: int) -> Words:
    """32 rows of 8 numbered elements, and a lane's row: a permutation, so that an exchanged pointer shows."""
    return [*pairs(list(range(256))), *((13 * lane + seed) % 32 for lane in range(32))]


def store_matrix_input(matrices: int, seed: int) -> Words:
    registers = [(2 * i + 1) | (2 * i + 2) << 16 for i in range(32 * matrices)]
    return [*registers, *((13 * lane + seed) % 32 for lane in range(32))]


def conversions() -> Words:
    """Floats at which rounding to 16 bits decides something: ties, limits, subnormal numbers, infinity, NaN."""
    bits = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF]
    bits += [0x00000001, 0x807FFFFF, 0x00800000, 0x00008000, 0x00018000, 0x00008001, 0x7F7FFFFF, 0xFF7FFFFF]
    # bfloat16: ties to the even one below and above, just beside a tie, the largest that does not become infinity.
    bits += [0x3F808000, 0x3F818000, 0x3F808001, 0x3F817FFF, 0xBF808000, 0xBF818000, 0x7F7F7FFF, 0x7F7F8000]
    # half: the same, its limit 65504 and 65520, its subnormal numbers down to half of the smallest.
    bits += [0x3F801000, 0x3F803000, 0x3F801001, 0x3F802FFF, 0x477FE000, 0x477FEFFF, 0x477FF000, 0xC77FF000]
    bits += [0x38800000, 0x387FE000, 0x387FF000, 0x33800000, 0x33000000, 0x33000001, 0x33C00000, 0x32FFFFFF]
    return [*bits, *mixed(NUMBERS - len(bits), 5)]


def sixteen_bits() -> Words:
    """Patterns of 16 bits: zeros, subnormal numbers, infinities and NaN of both formats, and others."""
    special = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x007F, 0x0080, 0x7BFF, 0x7C00, 0xFC00, 0x7E00]
    special += [0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0x3C00, 0xBC00, 0x3F80, 0xBF80]
    return pairs([*special, *(word >> 16 for word in mixed(NUMBERS - len(special), 7))])


def spread(low: float, high: float) -> Words:
    """Floats from low to high at equal distances."""
    return float_words(low + (high - low) * i / (NUMBERS - 1) for i in range(NUMBERS))


def powers(low: int, high: int) -> Words:
    """Positive floats spread over the exponents from low to high."""
    return float_words((1 + i % 7 / 7) * 2.0 ** (low + (high - low) * i // (NUMBERS - 1)) for i in range(NUMBERS))


def lanes() -> list[Case]:
    few = [word % 5 for word in mixed(32, 2)]
    bits = [0, 1, 0x80000000, 0xFFFFFFFF, 0x00010000, *mixed(27, 3)]
    # Bit 0 holds in some lanes, bit 1 in all, bit 2 in none.
    votes = [word % 2 | 2 for word in mixed(64, 4)]
    return [
        Case("shuffle", (*mixed(32, 1), *(word % 32 for word in mixed(32, 6)))),
        *(Case(f"shuffle_{kind}", tuple(mixed(32, 1))) for kind in ("xor", "up", "down", "in_halves")),
        Case("shuffle_64_bits", tuple(mixed(64, 1))),
        Case("votes", tuple(votes[:32])),
        Case("match", tuple(few)),
        Case("bits", tuple(bits)),
        Case("block_votes", tuple(votes)),
    ]


def matrices() -> list[Case]:
    cases = []
    for trans in ("", "_trans"):
        for count in (1, 2, 4):
            cases.append(Case(f"ldmatrix_x{count}{trans}", tuple(rows_and_pointers(count))))
            words = tuple(store_matrix_input(count, count))
            cases.append(Case(f"stmatrix_x{count}{trans}", words, capability=90))
    forms: dict[str, Callable[[Iterable[float]], Words]] = {"bfloat16": bfloat16_words, "half": half_words}
    for name, form in forms.items():
        a, b, sums = form(small(256, 11)), form(small(128, 12)), float_words(small(128, 13, -99, 99))
        cases.append(Case(f"mma_{name}", (*pairs(a), *pairs(b), *sums)))
        cases.append(Case(f"tile_{name}", (*pairs(a), *pairs(b))))
    return cases


def copies() -> list[Case]:
    sizes = {"4": 32, "8": 64, "16": 128}
    cases = [Case(f"cp_async_{size}{kind}", tuple(mixed(words, 21)))
             for size, words in sizes.items() for kind in ("", "_zero_fill")]
    cases.append(Case("cp_async_16_second_level", tuple(mixed(128, 22))))
    return [*cases, Case("cp_async_groups", tuple(mixed(96, 23)))]


def order() -> list[Case]:
    cases = []
    for kind in ("uint32", "int32", "uint64"):
        words = tuple(mixed(80 if kind == "uint64" else 40, 31))
        cases += [Case(f"atomic_add_{kind}", words), Case(f"atomic_max_{kind}", words)]
        if kind != "uint64":
            cases.append(Case(f"atomic_min_{kind}", words))
    return [
        *cases,
        Case("atomic_add_float", tuple(float_words(small(40, 32)))),
        Case("atomic_or", tuple(1 << word % 32 for word in mixed(40, 33))),
        Case("atomic_count", ()),
        Case("atomic_exchange", tuple(mixed(32, 34))),
        Case("publish", tuple(mixed(32, 35))),
        Case("add_in_order", tuple(mixed(128, 36))),
        Case("named_barrier", tuple(mixed(32, 37))),
        Case("last_block", tuple(mixed(8, 38))),
    ]


def numbers() -> list[Case]:
    """Elementary functions are compared with the bounds that device/math.h and device/fast_math.cuh state, doubled:
    both sides may err by that much."""
    ulp = 2.0**-23
    kinds = ("bfloat16", "half")
    converted = [Case(f"{what}_{kind}", tuple(conversions())) for what in ("to", "pack") for kind in kinds]
    widened = [Case(f"from_{kind}", tuple(sixteen_bits())) for kind in kinds]
    return [
        *converted,
        *widened,
        Case("math_exp", tuple(spread(-90.0, 90.0)), relative=2.2 * ulp),
        Case("math_log", tuple(powers(-140, 126)), relative=2 * ulp),
        Case("math_log1p", tuple(powers(-30, 30)), relative=3 * ulp),
        Case("fast_exp2", tuple(spread(-20.0, 20.0)), relative=4 * ulp),
        Case("fast_exp", tuple(spread(-10.0, 10.0)), relative=28 * ulp),
        Case("fast_log", tuple(powers(-100, 100)), relative=6 * ulp, absolute=2.0**-20),
        Case("fast_tanh", tuple(spread(-5.0, 5.0)), relative=2.0**-10),
        Case("fast_rsqrt", tuple(powers(-100, 100)), relative=4 * ulp),
        Case("fast_divide", tuple(powers(-100, 100)), relative=4 * ulp),
        Case("philox", tuple(mixed(192, 41))),
    ]


def asynchronous() -> list[Case]:
    """Tensors of 24 rows of 40 words."""
    loads = ("tensor_load", "tensor_load_swizzle_32", "tensor_load_swizzle_64", "tensor_load_swizzle_128")
    return [
        *(Case(name, tuple(mixed(960, 51)), capability=90) for name in loads),
        Case("tensor_load_four_dimensions", tuple(mixed(480, 52)), capability=90),
        Case("tensor_store", tuple(mixed(512, 53)), capability=90),
        Case("tensor_add", tuple(float_words(small(512, 54))), capability=90),
        Case("bulk_runs", tuple(float_words(small(64, 55))), capability=90),
        Case("mbarrier_phases", tuple(mixed(64, 56)), capability=90),
        Case("register_budget", tuple(mixed(384, 57)), capability=90),
    ]


def wgmma() -> list[Case]:
    """One product a case. Names say type, N, what is dense in A and B (k, m, n) and the bytes of their swizzles."""
    names = (
        "bfloat16_64_k0_k0", "bfloat16_64_k32_k64", "bfloat16_64_k128_k128", "bfloat16_64_m0_n0", "bfloat16_64_m32_n64",
        "bfloat16_64_m128_n128", "half_64_k64_n32", "half_64_m64_k32", "half_64_registers_k128",
        "bfloat16_80_k128_k128", "half_80_registers_n32", "half_80_registers_n128", "half_96_k128_k128",
        "bfloat16_96_registers_n64", "bfloat16_96_registers_n128", "bfloat16_128_k128_k128", "half_128_k128_k128",
        "bfloat16_128_registers_n128", "bfloat16_128_m128_n128",
    )  # fmt: skip
    return [Case(f"wgmma_{name}", tuple(wgmma_words(name)), capability=90, only=True) for name in names]


def wgmma_words(name: str) -> Words:
    """Sizes and layouts, then small integers wherever A and B lie."""
    kind, columns, a, b = name.split("_")
    form = bfloat16_words if kind == "bfloat16" else half_words
    sizes: Words = []
    lies: Words = []
    for tile, extent in ((a, 64), (b, int(columns))):
        if tile == "registers":
            sizes.append(512)
            lies += [0, 0, 0]
            continue
        row = int(tile[1:]) or 16
        pattern = 8 * row
        parts = extent // 8 if tile[0] == "k" else -(-2 * extent // row)  # patterns along M or N
        if tile[0] == "k":
            sizes.append(parts * pattern * (2 if row == 16 else 1) // 4)
            lies += [row.bit_length() - 5, parts * pattern if row == 16 else 0, pattern]
        else:
            sizes.append(parts * pattern * 2 // 4)
            lies += [row.bit_length() - 5, parts * pattern if row == 16 else 2 * pattern, pattern]
    elements = form(small(2 * sum(sizes), len(name) + int(columns)))
    return [*sizes, *lies, *pairs(elements)]


PARTS = (lanes, matrices, copies, order, numbers, asynchronous, wgmma)
CASES: dict[str, Case] = {case.name: case for part in PARTS for case in part()}
