"""The kernels of embedding: what they move, in every order of their threads, and broken at every word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from math import ceil

import torch

from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_embedding
from python_tests.ops.suite import Inputs, New

PIECE = 32
WARPS_OF_A_JOIN = 16
ID = 8  # bytes

Traffic = Mapping[str, Mapping[str, Bytes]]


def lookups(count: int, width: int, *, hot: tuple[int, int] = (0, 0)) -> Callable[[New], Inputs]:
    """Few tokens, one of them in all places from hot[0] to hot[1]; positions that repeat."""

    def draw(new: New) -> Inputs:
        tokens = new.ints(0, 6, count)
        tokens[slice(*hot)] = 3
        return {
            "tokens": tokens, "position_ids": torch.arange(count) % 7,
            "token_weight": new(9, width), "position_weight": new(8, width, scale=0.1),
        }

    return draw


def runs(*lengths: int) -> Callable[[New], Inputs]:
    """Token i in lengths[i] places, mixed."""

    def draw(new: New) -> Inputs:
        tokens = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        mixed = tokens[torch.randperm(len(tokens), generator=new.generator)]
        return {**lookups(len(tokens), 8)(new), "tokens": mixed}

    return draw


def table(ids: torch.Tensor, vectors: int) -> tuple[int, int, int, int]:
    """Of the gradient of one table: bytes of ids and of their order that are read, rows of it that are written, and
    partial rows."""
    ordered = sorted(ids.tolist())
    count, chunks = len(ordered), ceil(vectors / PIECE)
    pieces = [ordered[begin:begin + PIECE] for begin in range(0, count, PIECE)]
    id_bytes = ID * chunks * (count + 2 * (len(pieces) - 1))
    written, partial, places = 0, 0, 0
    for _, run in groupby(ordered):
        first, places = places, places + len(list(run))
        touched = range(first // PIECE, (places - 1) // PIECE + 1)
        written += 1
        partial += len(touched) if len(touched) > 1 else 0
    for piece in range(len(pieces) - 1) if len(pieces) > 1 else ():
        id_bytes += ID * chunks * WARPS_OF_A_JOIN * ids_of_a_join(pieces, piece)
    return id_bytes, ID * chunks * count, written, partial


def ids_of_a_join(pieces: list[list[int]], piece: int) -> int:
    """How many ids a warp of the last kernel looks at: whether a run begins in the piece, and how far it goes on."""
    number = pieces[piece][-1]
    starts_with_it = pieces[piece][0] == number
    seen = 3 + (starts_with_it and piece > 0)
    begins_here = not starts_with_it or piece == 0 or pieces[piece - 1][-1] != number
    if pieces[piece + 1][0] != number or not begins_here:
        return seen
    low, high = piece + 1, len(pieces)
    while low + 1 < high:
        middle, seen = (low + high) // 2, seen + 1
        low, high = (middle, high) if pieces[middle][0] == number else (low, middle)
    return seen


def moved(inputs: Inputs) -> Traffic:
    """Two rows read and one written a token; the gradient read once a table, each row that is named written once."""
    tokens, positions, weight = inputs["tokens"], inputs["position_ids"], inputs["token_weight"]
    count, width = tokens.numel(), weight.shape[1]
    row, vectors = width * weight.element_size(), width * weight.element_size() // 16
    backward: dict[str, Bytes] = {"dy": (2 * count * row, 0)}
    for place, (name, ids) in enumerate((("dtoken_weight", tokens), ("dposition_weight", positions))):
        id_bytes, order_bytes, written, partial = table(ids, vectors)
        backward[name] = (0, written * row)
        backward[f"scratch {place}"] = (partial * width * 4, partial * width * 4)
        backward[f"unnamed {2 * place}"] = (id_bytes, 0)
        backward[f"unnamed {2 * place + 1}"] = (order_bytes, 0)
    return {
        "embedding": {
            "tokens": (ID * count, 0), "position_ids": (ID * count, 0), "output 0": (0, count * row),
            "token_weight": (count * row, 0), "position_weight": (count * row, 0),
        },
        "embedding_backward": backward,
    }


class TestEmbeddingKernels(KernelSuite):
    suite = test_embedding.TestEmbedding
    cases = (
        KernelCase("odd width", lookups(70, 5, hot=(10, 50)), dtype=torch.bfloat16),
        KernelCase("runs that end beside the ends of pieces", runs(31, 1, 40, 23, 6)),
        KernelCase("a run that begins with the last place of a piece", runs(31, 40, 10)),
        KernelCase("a run that ends with the first place of a piece", runs(20, 45, 40)),
        KernelCase("a run that ends with the last place of a piece", runs(20, 44, 41)),
        KernelCase("one piece", lookups(20, 40), traffic=moved),
        KernelCase("a run over pieces", lookups(101, 64, hot=(20, 90)), dtype=torch.bfloat16, traffic=moved),
        KernelCase("more columns than are on their way at once", lookups(34, 544), traffic=moved),
        KernelCase("more pieces than slices", lookups(560, 32, hot=(5, 555)), traffic=moved),
    )
