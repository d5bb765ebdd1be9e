"""What the host tells the driver of a tensor (tensor_map), over a driver of the test's own."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from python_tests.device.probe import build, load

FLOAT, BFLOAT16, HALF = range(3)  # Element
SWIZZLES = range(4)  # none, 32, 64, 128 bytes
TYPES = {FLOAT: 7, BFLOAT16: 9, HALF: 6}  # CU_TENSOR_MAP_DATA_TYPE_
BASE = 0x7F0000001000


class Handed(ctypes.Structure):
    _fields_ = [("type", ctypes.c_longlong), ("dimensions", ctypes.c_longlong), ("base", ctypes.c_longlong),
                ("sizes", ctypes.c_longlong * 5), ("strides", ctypes.c_longlong * 5), ("box", ctypes.c_longlong * 5),
                ("steps", ctypes.c_longlong * 5), ("interleave", ctypes.c_longlong), ("swizzle", ctypes.c_longlong),
                ("fill", ctypes.c_longlong)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("tensor_map_probe.cpp", "binding/cuda/tensor_map.cpp", tmp_path_factory.mktemp("tensor_map"))


@pytest.fixture
def probe(library: Path, tmp_path: Path) -> ctypes.CDLL:
    """The probe as a fresh process would have it."""
    loaded = load(library, tmp_path)
    loaded.make_map.restype = ctypes.POINTER(Handed)
    loaded.make_map.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int, ctypes.c_long * 5, ctypes.c_long * 5,
                                ctypes.c_int * 5, ctypes.c_int)
    loaded.last_error.restype = ctypes.c_char_p
    return loaded


def make(probe: ctypes.CDLL, sizes: list[int], strides: list[int], box: list[int], *, element: int = BFLOAT16,
         swizzle: int = 3, base: int = BASE) -> Any:
    return probe.make_map(element, base, len(sizes), (ctypes.c_long * 5)(*sizes), (ctypes.c_long * 5)(*strides),
                          (ctypes.c_int * 5)(*box), swizzle)


@pytest.mark.parametrize("element", TYPES)
def test_the_driver_is_handed_the_tensor_as_it_is(probe: ctypes.CDLL, element: int) -> None:
    """Strides from dimension 1 on, no steps, no interleave, zeros outside."""
    inner = 32 if element == FLOAT else 64
    handed = make(probe, [80, 12, 1023, 4], [0, 160, 1920, 1964160], [inner, 1, 64, 1], element=element)
    assert handed, probe.last_error()
    told = handed.contents
    assert (told.type, told.dimensions, told.base) == (TYPES[element], 4, BASE)
    assert list(told.sizes)[:4] == [80, 12, 1023, 4]
    assert list(told.strides)[:4] == [160, 1920, 1964160, 0]
    assert list(told.box)[:4] == [inner, 1, 64, 1]
    assert list(told.steps)[:4] == [1, 1, 1, 1]
    assert (told.interleave, told.swizzle, told.fill) == (0, 3, 0)


@pytest.mark.parametrize(("swizzle", "inner"), [(0, 8), (0, 256), (1, 16), (2, 32), (3, 64)])
def test_every_swizzle_has_its_number(probe: ctypes.CDLL, swizzle: int, inner: int) -> None:
    handed = make(probe, [256, 8], [0, 512], [inner, 8], swizzle=swizzle)
    assert handed, probe.last_error()
    assert handed.contents.swizzle == swizzle


def test_the_driver_is_asked_once(probe: ctypes.CDLL) -> None:
    for _ in range(3):
        assert make(probe, [64, 8], [0, 128], [64, 8])
    assert probe.times_asked() == 1


def test_a_driver_without_the_call_is_named(probe: ctypes.CDLL) -> None:
    """And asked again: the failure is not kept."""
    probe.set_driver(False, 0)
    assert not make(probe, [64, 8], [0, 128], [64, 8])
    assert b"the driver has no cuTensorMapEncodeTiled" in probe.last_error()
    probe.set_driver(True, 0)
    assert make(probe, [64, 8], [0, 128], [64, 8])


def test_a_refusal_names_the_tensor_and_the_error(probe: ctypes.CDLL) -> None:
    probe.set_driver(True, 1)
    assert not make(probe, [64, 8], [0, 128], [64, 8])
    assert probe.last_error() == b"probe: cuTensorMapEncodeTiled refused the tensor map, error 1"


def test_rules_are_checked_before_the_driver_is_asked(probe: ctypes.CDLL) -> None:
    """All of them: python_tests/simt/test_tensor_copies.py, on the emulator's half of the same check."""
    assert not make(probe, [64, 8], [0, 120], [64, 8])
    assert b"the stride of dimension 1 is 120 bytes" in probe.last_error()
    assert probe.times_asked() == 0
