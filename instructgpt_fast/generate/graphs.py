"""The decode step as CUDA graphs: one launch a step instead of a few for every layer.

Not covered: devices without graphs; there the step runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["StepGraphs", "bucket_of"]

_Results = tuple[Tensor, Tensor]


def bucket_of(count: int, slots: int) -> int:
    """For how many rows a step that serves `count` of `slots` is captured: powers of two, so that graphs are few."""
    return min(slots, 1 << (count - 1).bit_length())


class StepGraphs:
    """Captures a step over the first n slots once for every n that it is asked for, and replays it from then on.

    The step must read and write only memory that stays where it is, and must leave idle slots harmless.
    """

    def __init__(self, step: Callable[[int], _Results], restore: Callable[[], None]) -> None:
        """step: runs over n slots and returns (tokens [n], logprobs [n]). restore: undoes what a step changed."""
        self._step, self._restore = step, restore
        self._graphs: dict[tuple[int, bool], tuple[torch.cuda.CUDAGraph, _Results]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, width: int, penalised: bool) -> _Results:
        """Run the step over `width` slots; what it returns is overwritten by the next run.

        penalised: whether the step reads a history now, which it did not have before the first penalty.
        """
        key = (width, penalised)
        if key not in self._graphs:
            self._graphs[key] = self._capture(width)
        graph, drawn = self._graphs[key]
        graph.replay()
        return drawn

    def _capture(self, width: int) -> tuple[torch.cuda.CUDAGraph, _Results]:
        # Once for real, for what is only loaded at a first launch and cannot be while capturing. The keys and values
        # that it stores are those that the replay will store again.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step(width)
        torch.cuda.current_stream().wait_stream(side)
        self._restore()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            drawn = self._step(width)
        return graph, drawn
