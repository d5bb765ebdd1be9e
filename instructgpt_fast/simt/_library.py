"""Loads libigf_simt.so when it is first asked for, and speaks its small C interface (csrc/simt/control.h)."""

from __future__ import annotations

import ctypes
import json
from functools import lru_cache
from typing import Any

from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library

LIBRARY = _library.LIBRARY_DIR / "libigf_simt.so"
DISPATCH_KEY = _library.DISPATCH_KEYS["simt"]


class SimtError(RuntimeError):
    """A kernel broke a rule while it was emulated: the text says which, where, by which thread, and what to do."""


def available() -> bool:
    """Tells whether the emulator was built."""
    return LIBRARY.is_file()


def operators() -> frozenset[str]:
    """Names of the raw operators that have emulated kernels. Raises BackendError when the emulator was not built."""
    emulator()
    return _library.operators_on("simt")


class Emulator:
    """The loaded library. Its state is one for the whole process."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name, arguments, result in (
            ("begin", (ctypes.c_char_p,), None),
            ("end", (), None),
            ("op_begins", (), None),
            ("name_buffer", (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p), None),
            ("op_ends", (), None),
            ("take_launches", (), ctypes.c_char_p),
            ("launch_failed", (), ctypes.c_int),
            ("sites", (), ctypes.c_char_p),
            ("describe", (ctypes.c_uint64,), ctypes.c_char_p),
            ("mutation_applied", (), ctypes.c_uint64),
        ):
            function = getattr(library, f"igf_simt_{name}")
            function.argtypes, function.restype = arguments, result

    def begin(self, options: dict[str, Any]) -> None:
        """Sets how kernels run until `end`."""
        lines = "".join(f"{name}={value}\n" for name, value in options.items())
        self._library.igf_simt_begin(lines.encode())

    def end(self) -> None:
        """Observes and breaks nothing from here on."""
        self._library.igf_simt_end()

    def op_begins(self) -> None:
        """Forgets the buffers of the last op."""
        self._library.igf_simt_op_begins()

    def name_buffer(self, address: int, size: int, name: str) -> None:
        """Names an argument's memory for messages and accounts."""
        self._library.igf_simt_name_buffer(address, size, name.encode())

    def op_ends(self) -> None:
        """Forgets the buffers, which torch may free from here on."""
        self._library.igf_simt_op_ends()

    def take_launches(self) -> list[dict[str, Any]]:
        """The accounts of the launches since the last call."""
        launches: list[dict[str, Any]] = json.loads(self._library.igf_simt_take_launches())
        return launches

    def launch_failed(self) -> bool:
        """Tells whether an exception came from a launch since the op began, and not from the op's own checks."""
        return bool(self._library.igf_simt_launch_failed())

    def sites(self) -> list[dict[str, Any]]:
        """Places whose words were said since `begin`."""
        sites: list[dict[str, Any]] = json.loads(self._library.igf_simt_sites())
        return sites

    def describe(self, program_counter: int) -> str:
        """File and line of a raw access."""
        return str(self._library.igf_simt_describe(program_counter).decode())

    def mutation_applied(self) -> int:
        """How often the chosen mutation changed what a word did."""
        return int(self._library.igf_simt_mutation_applied())


@lru_cache(maxsize=1)
def emulator() -> Emulator:
    """The emulator, loaded. Raises BackendError when it was not built."""
    if not available():
        raise BackendError(
            f"instructgpt_fast.simt: {LIBRARY} does not exist: the emulator was not built; build it in place with "
            "`INSTRUCTGPT_FAST_SIMT=ON python setup.py build_ext --inplace`"
        )
    _library.load(LIBRARY)
    return Emulator(ctypes.CDLL(str(LIBRARY)))
