"""Times on a GPU: between events on a stream that is kept busy; calls that take a short time many at once, as a graph.

A call that takes a few microseconds is shorter than its way from Python to the GPU. So the calls on all sets of inputs
are captured into one CUDA graph, and the graph's time is divided by their number. Longer calls are timed one by one,
behind a kernel that keeps the GPU busy until the CPU has handed over all of the call's work.

`gpu` is torch.cuda; tests put something in its place, so that everything but the GPU's own answers is tested.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

SMALL_MS = 0.25  # calls shorter than this are captured
LEAST_GRAPH_MS = 1.0  # a replay is at least this long, so that the events' own resolution does not show
MOST_CALLS = 512  # of one graph
BUSY_CYCLES = 2_000_000  # 1 ms and more, while the CPU hands over what is timed: a pass with its gradients takes 0.3 ms

Inputs = TypeVar("Inputs")


@dataclass
class Prepared(Generic[Inputs]):
    """A contender that is ready to be timed: `how` says in words what a time of it is."""

    function: Callable[[Inputs], Any]
    inputs: Sequence[Inputs]
    how: str = "events"
    graph: Any = None
    calls: int = 1
    kept: list[Any] = field(default_factory=list)  # results that a captured graph writes to


class GpuClock:
    """Prepares contenders and times them."""

    def __init__(self, gpu: Any = torch.cuda) -> None:
        self.gpu = gpu

    def prepare(
        self, name: str, function: Callable[[Inputs], Any], inputs: Sequence[Inputs], warmup: int
    ) -> Prepared[Inputs]:
        """Warm up, see how long a call takes, and capture it when that is short."""
        for turn in range(max(warmup, 1)):
            function(inputs[turn % len(inputs)])
        prepared = Prepared(function, inputs)
        took = min(self.milliseconds(prepared, turn) for turn in range(3))
        if took < SMALL_MS:
            self._capture(name, prepared, took)
        return prepared

    def milliseconds(self, prepared: Prepared[Inputs], turn: int) -> float:
        """The time of one call; a graph takes all its sets of inputs, other calls take turns with theirs."""
        start, end = (self.gpu.Event(enable_timing=True) for _ in range(2))
        self.gpu.synchronize()
        self.gpu._sleep(BUSY_CYCLES)
        start.record()
        kept = prepared.function(prepared.inputs[turn % len(prepared.inputs)]) if prepared.graph is None else None
        if prepared.graph is not None:
            prepared.graph.replay()
        end.record()
        self.gpu.synchronize()
        del kept
        return float(start.elapsed_time(end)) / prepared.calls

    def _capture(self, name: str, prepared: Prepared[Inputs], took: float) -> None:
        """Make a graph of calls on every set of inputs; where that fails say so, and time by events."""
        calls = max(len(prepared.inputs), round(LEAST_GRAPH_MS / max(took, 1e-3)))
        calls = min(calls, max(MOST_CALLS, len(prepared.inputs)))
        graph = self.gpu.CUDAGraph()
        stream = self.gpu.current_stream()
        try:
            # What a library sets up at its first call must be set up on the stream that is captured.
            side = self.gpu.Stream()
            side.wait_stream(self.gpu.current_stream())
            with self.gpu.stream(side):
                prepared.function(prepared.inputs[0])
            self.gpu.current_stream().wait_stream(side)
            with self.gpu.graph(graph):
                for call in range(calls):
                    prepared.kept = [prepared.function(prepared.inputs[call % len(prepared.inputs)])]
        except Exception as error:
            self.gpu.set_stream(stream)  # torch leaves the stream of a capture that fails current
            self.gpu.synchronize()
            reason = " ".join(str(error).split())[:200]
            prepared.how = f"events, not a graph: {type(error).__name__}: {reason}"
            print(f"WARNING: {name}: no CUDA graph, so the time below holds the launches too: {reason}",
                  file=sys.stderr, flush=True)
            return
        prepared.graph, prepared.calls = graph, calls
        prepared.how = f"a graph of {calls} calls"
        graph.replay()
        self.gpu.synchronize()


def sets_beyond_cache(bytes_of_one: int, cache_bytes: int, memory_bytes: int) -> int:
    """How many sets of inputs leave the cache no chance: three times its size, in a quarter of the memory at most."""
    wanted = -(-3 * cache_bytes // max(bytes_of_one, 1))
    affordable = memory_bytes // 4 // max(bytes_of_one, 1)
    return max(2, min(max(3, wanted), affordable, MOST_CALLS))
