"""The logic of timing on a GPU, with one that is made up: what is captured, what a time is divided by, what fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks import gpu_clock, measure
from benchmarks.gpu_clock import GpuClock, sets_beyond_cache


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.at = gpu, -1.0

    def record(self) -> None:
        self.at = self.gpu.now

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self.gpu.synchronized, "the time was asked for before the GPU was done"
        return end.at - self.at


class FakeGraph:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.took = gpu, 0.0

    def replay(self) -> None:
        self.gpu.launch(self.took)


class FakeGpu:
    """A clock that moves by what is launched; every launch from Python costs `overhead` where the stream runs dry."""

    def __init__(self, overhead: float = 0.02, captures: bool = True) -> None:
        self.overhead, self.captures = overhead, captures
        self.now, self.busy_until_handed_over, self.synchronized = 0.0, False, True
        self.capturing: FakeGraph | None = None
        self.graphs: list[FakeGraph] = []
        self.Event, self.CUDAGraph = self.new_event, self.new_graph
        self.streams = [self.Stream()]  # the last one is current

    def launch(self, milliseconds: float) -> None:
        if self.capturing is not None:
            self.capturing.took += milliseconds
            return
        self.now += milliseconds + (0.0 if self.busy_until_handed_over else self.overhead)
        self.synchronized = False

    def new_event(self, enable_timing: bool) -> FakeEvent:
        assert enable_timing
        return FakeEvent(self)

    def synchronize(self) -> None:
        self.synchronized, self.busy_until_handed_over = True, False

    def _sleep(self, cycles: int) -> None:
        assert cycles > 0
        self.busy_until_handed_over = True
        self.now += 0.2

    def new_graph(self) -> FakeGraph:
        self.graphs.append(FakeGraph(self))
        return self.graphs[-1]

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph) -> Iterator[None]:
        self.streams.append(self.Stream())
        if not self.captures:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        self.capturing = graph
        try:
            yield
        finally:
            self.capturing = None
            self.streams.pop()

    class Stream:
        def wait_stream(self, other: Any) -> None: ...

    def current_stream(self) -> Stream:
        return self.streams[-1]

    def set_stream(self, stream: Stream) -> None:
        self.streams.append(stream)

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        yield


def contender(gpu: FakeGpu, seen: list[int], milliseconds: float) -> Callable[[int], None]:
    def call(inputs: int) -> None:
        seen.append(inputs)
        gpu.launch(milliseconds)

    return call


def test_short_calls_become_a_graph_over_all_inputs() -> None:
    """So that their time is free of launches: 3 us each, though a launch from Python costs 20."""
    gpu, seen = FakeGpu(), list[int]()
    prepared = GpuClock(gpu).prepare("short", contender(gpu, seen, 0.003), list(range(100)), warmup=2)
    calls = round(gpu_clock.LEAST_GRAPH_MS / 0.003)
    assert prepared.how == f"a graph of {calls} calls" and prepared.calls == calls
    captured = seen[-calls:]
    assert captured[:101] == [*range(100), 0]
    assert GpuClock(gpu).milliseconds(prepared, 0) == pytest.approx(0.003)


def test_long_calls_are_timed_one_by_one_behind_work_that_hides_their_launch() -> None:
    gpu, seen = FakeGpu(), list[int]()
    clock = GpuClock(gpu)
    prepared = clock.prepare("long", contender(gpu, seen, 5.0), [0, 1, 2], warmup=2)
    assert prepared.how == "events" and not gpu.graphs
    seen.clear()
    assert [clock.milliseconds(prepared, turn) for turn in range(4)] == pytest.approx([5.0] * 4)
    assert seen == [0, 1, 2, 0]


def test_a_capture_that_fails_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen and in what is written; the time is then taken by events."""
    gpu, seen = FakeGpu(captures=False), list[int]()
    clock = GpuClock(gpu)
    stream = gpu.current_stream()
    timings = measure.interleaved({"ours": contender(gpu, seen, 0.01)}, [0, 1], "cuda", rounds=6, clock=clock)
    assert gpu.current_stream() is stream  # not the one of the capture, which torch leaves current
    assert "WARNING: ours: no CUDA graph" in capsys.readouterr().err
    written = timings["ours"].as_dict()
    assert written["timed"] == ("events, not a graph: RuntimeError: operation not permitted when stream is capturing")
    assert written["median_ms"] == pytest.approx(0.01) and written["rounds"] == 6


def test_rounds_take_turns_on_a_gpu_too() -> None:
    gpu = FakeGpu()
    order: list[str] = []

    def named(name: str) -> Callable[[int], None]:
        def call(inputs: int) -> None:
            order.append(f"{name}{inputs}")
            gpu.launch(1.0)

        return call

    contenders = {name: named(name) for name in "ab"}
    timings = measure.interleaved(contenders, [0, 1], "cuda", rounds=3, clock=GpuClock(gpu))
    assert order[-6:] == ["a0", "b0", "b1", "a1", "a0", "b0"]
    assert [t.timed for t in timings.values()] == ["events", "events"]


def test_inputs_outgrow_the_cache_and_not_the_memory() -> None:
    mebibyte = 1 << 20
    assert sets_beyond_cache(100 << 10, 60 * mebibyte, 140 << 30) == gpu_clock.MOST_CALLS
    assert sets_beyond_cache(10 * mebibyte, 60 * mebibyte, 140 << 30) == 18
    assert sets_beyond_cache(512 * mebibyte, 60 * mebibyte, 140 << 30) == 3
    assert sets_beyond_cache(512 * mebibyte, 60 * mebibyte, 4 << 30) == 2
