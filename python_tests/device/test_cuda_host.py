"""What the host does for a launch on a GPU (arrival counters, shared memory), over a CUDA runtime of the test's own."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from python_tests.device.probe import build, load

COUNTERS = 32  # kArrivalCounters
PLACES_AT_ONCE = 1024  # of arrivals.cpp
STATIC_BYTES, UNASKED, ALIGNMENT = 256, 48 << 10, 1023


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("cuda_runtime_probe.cpp", "binding/cuda/arrivals.cpp", tmp_path_factory.mktemp("cuda_host"))


@pytest.fixture
def probe(library: Path, tmp_path: Path) -> ctypes.CDLL:
    """The probe as a fresh process would have it: loaded from a file of its own, nothing allocated, nothing asked."""
    loaded = load(library, tmp_path)
    loaded.arrivals.restype = ctypes.POINTER(ctypes.c_uint32)
    loaded.arrivals.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_long)
    loaded.begin_capture.argtypes = (ctypes.c_ulonglong,)
    loaded.launches.argtypes = (ctypes.c_int, ctypes.c_bool, ctypes.c_long, ctypes.c_int)
    loaded.launches.restype = loaded.mode_is_as_before.restype = ctypes.c_bool
    return loaded


def address(place: ctypes._Pointer[ctypes.c_uint32]) -> int:
    assert place, "arrivals_of raised"
    return ctypes.addressof(place.contents)


def counters(probe: ctypes.CDLL, stream: int, count: int = COUNTERS) -> list[int]:
    place = probe.arrivals(0, stream, count)
    assert place, "arrivals_of raised"
    return list(place[:count])


def test_counters_are_zero_when_they_are_handed_out(probe: ctypes.CDLL) -> None:
    """On any stream at once: the fill has been waited for, for which a non-blocking stream would not wait."""
    assert counters(probe, 7) == [0] * COUNTERS


def test_launches_that_may_overlap_have_counters_of_their_own(probe: ctypes.CDLL) -> None:
    """More owners than one allocation serves; the same one gets the same place again, however often it asks."""
    owners = [(device, stream) for device in (0, 1) for stream in range(PLACES_AT_ONCE + 1)]
    places = {owner: address(probe.arrivals(*owner, COUNTERS)) for owner in owners}
    in_order = sorted(places.values())
    assert all(later - sooner >= 4 * COUNTERS for sooner, later in zip(in_order, in_order[1:], strict=False))
    assert all(address(probe.arrivals(*owner, COUNTERS)) == place for owner, place in places.items())


def test_a_graph_keeps_its_counters(probe: ctypes.CDLL) -> None:
    """A replay may run beside its stream's later work, and beside another graph."""
    eager = address(probe.arrivals(0, 7, COUNTERS))
    seen = {eager}
    for capture in (1, 2):
        probe.begin_capture(capture)
        recorded = {stream: address(probe.arrivals(0, stream, COUNTERS)) for stream in (7, 8)}
        assert all(address(probe.arrivals(0, stream, COUNTERS)) == place for stream, place in recorded.items())
        assert not seen & set(recorded.values())
        seen |= set(recorded.values())
        probe.begin_capture(0)
        assert address(probe.arrivals(0, 7, COUNTERS)) == eager
    assert len(seen) == 5


def test_a_launch_may_ask_for_many_counters(probe: ctypes.CDLL) -> None:
    """Zero too, of its own, beside those of launches that ask for few, and more than an allocation holds."""
    sizes = (COUNTERS, 5000, 100, 3 * PLACES_AT_ONCE * COUNTERS)
    ranges = []
    for stream in (7, 8):
        for size in sizes:
            assert counters(probe, stream, size) == [0] * size
            begin = address(probe.arrivals(0, stream, size))
            assert begin == address(probe.arrivals(0, stream, size))
            ranges.append((begin, begin + 4 * size))
    ranges.sort()
    assert all(end <= begin for (_, end), (begin, _) in zip(ranges, ranges[1:], strict=False))


def test_the_first_counters_may_be_asked_for_during_a_capture(probe: ctypes.CDLL) -> None:
    probe.begin_capture(1)
    assert counters(probe, 7) == [0] * COUNTERS
    assert probe.mode_is_as_before()


@pytest.mark.parametrize("shared", [0, 1 << 10, UNASKED - ALIGNMENT - STATIC_BYTES, UNASKED - ALIGNMENT, 200 << 10])
def test_shared_memory_is_asked_for(probe: ctypes.CDLL, shared: int) -> None:
    """Also where only static arrays take a launch past what a kernel has without asking."""
    assert probe.launches(0, False, shared, 12345)


def test_a_limit_is_never_lowered(probe: ctypes.CDLL) -> None:
    """Or a smaller launch of another host thread would refuse the larger one that is about to be made."""
    assert probe.launches(0, False, 100 << 10, 1)
    assert probe.launches(0, False, 60 << 10, 2)
    assert probe.times_asked() == 1
    assert probe.launches(0, True, 60 << 10, 3)
    assert probe.times_asked() == 2


def test_each_device_has_limits_of_its_own(probe: ctypes.CDLL) -> None:
    assert probe.launches(0, False, 100 << 10, 1)
    assert probe.launches(1, False, 100 << 10, 2)
    assert probe.launches(0, False, 60 << 10, 3)
    assert probe.times_asked() == 2


def test_a_refused_launch_does_not_spoil_the_next(probe: ctypes.CDLL) -> None:
    """The runtime still holds the error, which a launch must not take for its own."""
    assert not probe.launches(0, False, 227 << 10, 1)
    assert probe.launches(0, False, 1 << 10, 2)
