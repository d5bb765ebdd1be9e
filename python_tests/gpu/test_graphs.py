"""Launches that count their blocks, in CUDA graphs: as the first launch of a process, and beside other streams."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from instructgpt_fast import ops
from instructgpt_fast.ops import _library

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.skipif("masked_whiten" not in _library.CUDA_OPERATORS, reason="this build has no CUDA kernels"),
]

FIRST_LAUNCH = """
import torch
from instructgpt_fast import ops
x = torch.arange(6.0, device="cuda")
mask = torch.ones(6, dtype=torch.bool, device="cuda")
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = ops.masked_whiten(x, mask)
graph.replay()
torch.testing.assert_close(y, ops.masked_whiten_oracle(x, mask), rtol=1e-6, atol=1e-6)
"""


def test_the_first_launch_of_a_process_may_be_captured() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_LAUNCH], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_replays_run_beside_eager_launches() -> None:
    """Equal bits every time: neither takes the other's counters."""
    generator = torch.Generator("cuda").manual_seed(3)
    x = torch.randn(512, 2048, device="cuda", generator=generator)
    mask = torch.rand(x.shape, device="cuda", generator=generator) < 0.8
    expected = ops.masked_whiten(x, mask)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.masked_whiten(x, mask)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    for _ in range(50):
        captured.zero_()
        graph.replay()
        with torch.cuda.stream(side):
            beside = [ops.masked_whiten(x, mask) for _ in range(4)]
        torch.cuda.synchronize()
        assert all(torch.equal(result, expected) for result in (captured, *beside))


def test_a_captured_decode_follows_the_lengths() -> None:
    """One graph serves every step of a generation: lengths are read on the device, where rows are split each time."""
    generator = torch.Generator("cuda").manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=generator).bfloat16()

    rows, heads, width, page, pages = 2, 4, 64, 16, 128
    q, k, v = (draw(rows, 1, heads, width) for _ in range(3))
    caches = [draw(rows * pages, page, heads, width) for _ in range(2)]
    table = torch.randperm(rows * pages, device="cuda", generator=generator).view(rows, pages).int()
    lens = torch.tensor([1500, 3], dtype=torch.int32, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.attention_decode(q, k, v, *caches, table, lens)
    for step in range(20):
        lens.copy_(torch.tensor([1500 + 20 * step, 3 + step]))
        expected = ops.attention_decode(q, k, v, *caches, table, lens)
        captured.zero_()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(captured, expected), step
