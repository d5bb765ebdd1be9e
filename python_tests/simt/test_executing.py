"""How Python drives the emulator: which ops run where, what a run reports, how faults and refusals arrive."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast import ops, simt
from instructgpt_fast.errors import BackendError
from instructgpt_fast.simt import _library
from python_tests.ops.suite import New

WIDE = 1040  # features: a row of the layer norm takes a whole block, with barriers
ASKED_FOR = os.environ.get("INSTRUCTGPT_FAST_SIMT") == "ON"  # as `make` does
# Where it was asked for and is missing, these fail instead of staying silent.
pytestmark = pytest.mark.skipif(
    not simt.available() and not ASKED_FOR, reason="the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")


def inputs(rows: int = 3, width: int = WIDE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    new = New(torch.float32)
    x, weight, bias = new(rows, width), new(width), new(width)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def barriers() -> tuple[simt.Site, ...]:
    """Of the forward and the backward kernels."""
    with simt.executing(sites=True) as run:
        ops.layer_norm(*inputs()).sum().backward()
    assert run.sites_of("drop_barrier")
    return run.sites_of("drop_barrier")


def test_the_emulator_is_there() -> None:
    assert simt.available(), "INSTRUCTGPT_FAST_SIMT=ON asks for it: run `python setup.py build_ext --inplace`"


def test_forward_and_backward_run_their_kernels() -> None:
    x, weight, bias = inputs()
    with simt.executing(accounting=True) as run:
        ops.layer_norm(x, weight, bias).sum().backward()
    assert [launch.op for launch in run.launches][:1] == ["layer_norm"]
    assert {launch.op for launch in run.launches} == {"layer_norm", "layer_norm_backward"}
    assert not run.not_emulated
    forward = run.launches[0]
    moved = 4 * x.numel()
    assert forward.buffers["x"].unique_loaded_bytes == forward.buffers["x"].size == moved
    assert forward.buffers["y"].stored_bytes == forward.buffers["y"].unique_stored_bytes == moved
    assert forward.buffers["y"].loaded_bytes == forward.buffers["x"].stored_bytes == 0
    assert forward.buffers["mean"].stored_bytes == 12
    assert forward.block_barriers >= 2
    assert all(re.match(r"csrc/\S+:\d+( \(from csrc/\S+\))?$", place.where) for place in forward.places)
    outside = ops.layer_norm(x, weight, bias)
    assert outside.requires_grad
    assert len(run.launches) == len([launch for launch in run.launches if launch.op.startswith("layer_norm")])


def test_nothing_is_counted_unless_asked_for() -> None:
    with simt.executing() as run:
        ops.layer_norm(*inputs())
    assert not run.launches
    assert not run.sites


def test_what_an_op_allocates_is_named_by_its_results() -> None:
    with simt.executing(accounting=True) as run:
        ops.layer_norm(*inputs()).sum().backward()
    names = {name for launch in run.launches for name in launch.buffers if launch.op == "layer_norm_backward"}
    assert {"dy", "summed", "weight", "mean", "rstd", "dx", "dweight", "dbias"} <= names
    assert all(name.startswith("scratch ") for name in names - {
        "dy", "summed", "weight", "mean", "rstd", "dx", "dweight", "dbias", "arrivals"})


def test_an_op_without_a_kernel_runs_on_the_cpu_and_is_named() -> None:
    new = New(torch.float32)
    q = new(1, 4, 2, 8)
    if any(op.startswith("attention") for op in simt.operators()):
        pytest.skip("every op has a kernel")
    with simt.executing() as run:
        emulated = ops.attention(q, q, q)
    assert run.not_emulated == {"attention"}
    assert torch.equal(emulated, ops.attention(q, q, q))


def test_the_number_of_multiprocessors_reaches_the_kernels() -> None:
    grids = []
    for multiprocessors in (1, 3):
        with simt.executing(multiprocessors=multiprocessors, accounting=True) as run:
            ops.layer_norm(*inputs(rows=40)).sum().backward()
        grids.append([launch.grid for launch in run.launches])
    assert grids[0] != grids[1]


def faults(call: Callable[[], Any], *, schedule: str = "forward", seed: int = 0) -> list[str]:
    """What is said of the call when one barrier after the other is left out."""
    texts = []
    for site in barriers():
        with simt.executing(schedule, seed, mutation=simt.Mutation(site.kind, site.where)):
            try:
                call()
            except simt.SimtError as fault:
                texts.append(str(fault))
    return texts


def test_a_broken_kernel_raises_and_the_next_one_runs() -> None:
    """A dropped barrier is a race, named with both places and the kernel; nothing of it stays behind."""
    x, weight, bias = inputs()
    clean = ops.layer_norm(x, weight, bias)
    texts = faults(lambda: ops.layer_norm(x, weight, bias))
    assert texts
    for text in texts:
        assert text.startswith("layer_norm_forward")
        assert "race" in text
        assert len(re.findall(r"csrc/\S+:\d+", text)) >= 2, text
    with simt.executing():
        torch.testing.assert_close(ops.layer_norm(x, weight, bias), clean)


def test_a_fault_in_the_backward_pass_arrives_as_it_is() -> None:
    y = ops.layer_norm(*inputs())
    texts = faults(lambda: y.sum().backward(retain_graph=True))
    assert texts
    assert all(text.startswith("layer_norm_") and not text.startswith("layer_norm_forward") for text in texts)


def test_a_refusal_of_the_op_is_no_fault_of_a_kernel() -> None:
    x, weight, bias = (tensor.detach() for tensor in inputs())
    raw = torch.ops.instructgpt_fast.layer_norm
    with simt.executing(), pytest.raises(RuntimeError, match="weight must be a vector") as refusal:
        raw(x, None, weight[:-1], bias, 1e-5)
    assert not isinstance(refusal.value, simt.SimtError)


def test_a_seed_replays() -> None:
    """The same seed runs into the same faults, with the same threads in them; others meet other threads."""
    texts = {seed: faults(lambda: ops.layer_norm(*inputs()), schedule="preempting", seed=seed) for seed in range(4)}
    assert texts[1] == faults(lambda: ops.layer_norm(*inputs()), schedule="preempting", seed=1)
    assert len({tuple(found) for found in texts.values()}) > 1


def test_one_execution_at_a_time() -> None:
    with simt.executing():
        with pytest.raises(RuntimeError, match="has not ended"), simt.executing():
            pass
        ops.layer_norm(*inputs())
    with simt.executing():
        ops.layer_norm(*inputs())


def test_a_launch_that_says_too_much_is_taken_to_have_no_end() -> None:
    x = torch.randn(8, 64)
    with simt.executing(most_words=10_000):
        ops.layer_norm(x, torch.ones(64), torch.zeros(64))
    with pytest.raises(simt.SimtError, match="no end: more than 100 words were said"), simt.executing(most_words=100):
        ops.layer_norm(x, torch.ones(64), torch.zeros(64))


@pytest.mark.parametrize("options, rule", [
    ({"schedule": "sideways"}, "schedule must be one of forward, reverse, random, preempting, got 'sideways'"),
    ({"copies": "late"}, "copies must be one of lazy, eager, random, got 'late'"),
    ({"seed": 1 << 63}, "seed must be in [0, 2^63), got 9223372036854775808"),
    ({"multiprocessors": 0}, "multiprocessors must be in [1, 2^31), got 0"),
    ({"most_words": -1}, "most_words must be in [0, 2^63), got -1"),
    ({"architecture": 75}, "architecture must be one of 80, 86, 89, 90, 100, 120, got 75"),
    ({"mutation": simt.Mutation("drop_everything", "a.cu:1")}, "a mutation is one of drop_barrier"),
])
def test_options_out_of_range(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=f"simt.executing: {re.escape(rule)}"), simt.executing(**options):
        pass


@pytest.fixture
def _no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    _library.emulator.cache_clear()
    monkeypatch.setattr(_library, "LIBRARY", tmp_path / "libigf_simt.so")
    yield
    _library.emulator.cache_clear()


@pytest.mark.usefixtures("_no_library")
def test_a_build_without_the_emulator_says_how_to_get_it() -> None:
    assert not simt.available()
    with pytest.raises(BackendError, match="INSTRUCTGPT_FAST_SIMT=ON"), simt.executing():
        pass
