"""sample_token's kernel: every row read once, whatever is asked of it, and every way of breaking the kernel found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from python_tests.kernels.suite import Bytes, KernelCase, KernelSuite
from python_tests.ops import test_sample_token as op_tests
from python_tests.ops.suite import Inputs, New

Traffic = Mapping[str, Mapping[str, Bytes]]
PER_BLOCK = {"seeds": 8, "positions": 8}


def traffic(inputs: Inputs) -> Traffic:
    """One block a row: logits and history once, seed and position, 12 bytes written; parameters come by the launch."""
    logits = inputs["logits"]
    moved = {name: (size * len(logits), 0) for name, size in PER_BLOCK.items()}
    moved["logits"] = (logits.nbytes, 0)
    moved["history"] = (inputs["history"].nbytes if "history" in inputs else 0, 0)
    return {"sample_token": {**moved, "tokens": (0, 8 * len(logits)), "logprobs": (0, 4 * len(logits))}}


def shared_by_four(inputs: Inputs) -> Traffic:
    """Four blocks a row: the logits are still read once; each block leaves 32 bytes, which the last one reads."""
    (moved,) = traffic(inputs).values()
    blocks = 4 * len(inputs["logits"])
    numbers = {name: (size * blocks, 0) for name, size in PER_BLOCK.items()}
    return {"sample_token": {**moved, **numbers, "scratch 0": (32 * blocks, 32 * blocks)}}


def with_parameters(inputs: Inputs) -> Traffic:
    """A row's own parameters are five floats more."""
    (moved,) = traffic(inputs).values()
    return {"sample_token": {**moved, "parameters": (20 * len(inputs["logits"]), 0)}}


def some(batch: int, vocab: int, *, history: int | None = None, scale: float = 3.0) -> object:
    return lambda new: op_tests.rows(new, batch, vocab, history=history, scale=scale)


def tied(new: New) -> Inputs:
    """Whole numbers, so that a threshold is shared by many tokens; and a row in which nothing is finite."""
    inputs = op_tests.rows(new, 3, 192)
    inputs["logits"] = inputs["logits"].round()
    inputs["logits"][1] = -torch.inf
    return inputs


class TestSampleTokenRows(KernelSuite):
    suite = op_tests.TestSampleToken
    cases = (
        KernelCase("all", some(2, 320), traffic=traffic),
        KernelCase("bfloat16", some(2, 320), torch.bfloat16, {"temperature": 0.7}, traffic),
        KernelCase("greedy", some(2, 320), torch.float16, {"temperature": 0.0}, traffic),
        KernelCase("every cut", some(2, 320, history=40), torch.float32, op_tests.ALL_CUTS, traffic),
        KernelCase("top-k of many", some(1, 320), torch.float32, {"top_k": 200}, traffic),
        KernelCase("top-p", some(4, 320, scale=0.3), torch.bfloat16, {"top_p": 0.6}, traffic),
        KernelCase("min-p", some(1, 320), torch.float32, {"min_p": 0.1}, traffic),
        KernelCase("parameters of their own", lambda new: op_tests.per_row(new, 4, 320), traffic=with_parameters),
        KernelCase("ties", tied, torch.float32, {"top_k": 7, "top_p": 0.8}),
        KernelCase("rows off the vectors' boundaries", some(3, 67), torch.bfloat16, {"top_k": 5}),
        KernelCase("a row of four blocks", some(1, 4096), torch.float32, traffic=shared_by_four),
        KernelCase("a cut row of four blocks", some(1, 4100), torch.bfloat16, {"top_k": 9}),
        KernelCase("a row in pieces, its list full", some(1, 6000, scale=0.1), torch.float32, {"top_p": 0.9},
                   multiprocessors=1),
    )
    more_sectors: ClassVar = {
        "scratch 0": (2.0, "what a block leaves, 32 bytes, is read by one lane in two accesses"),
        "parameters": (1.5, "the five floats of a row may lie in two sectors"),
    }
    more_wavefronts: ClassVar = {"sample_token_rows": (1.1, "scores fall into the bins of a histogram as they like")}
    equivalent: ClassVar = {
        ("shuffle_wrong_lane", "survey(tokens"):
            "the shuffles find how high the warp's bar is; a lower one lets more tokens run and changes no winner",
        ("shift_store", "clear(bench);"): "neighbours change places: every bin is still set to 0 by somebody",
        ("drop_barrier", "all of this block's writes are made"):
            "one thread writes what its block leaves, and the same thread counts the block",
        ("drop_store", "write_standing(a.partials + block_x() * kWordsOfStanding, {kNobody"):
            "the first block settles a cut row alone; the others write so that nobody reads what was never written",
    }
