"""The committed outputs: golden.json, a line a kernel, with what they come from and which inputs they belong to."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.microkernels.cases import CASES, Case
from instructgpt_fast.files import atomic_write

PATH = Path(__file__).resolve().parent / "golden.json"
EMULATOR = "emulator, not yet confirmed on a GPU"

Outputs = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Golden:
    """source: EMULATOR, or the GPU and the software the outputs were taken with."""

    source: str
    outputs: Outputs

    @property
    def confirmed(self) -> bool:
        return self.source != EMULATOR


def digest(case: Case) -> int:
    """A number that changes with the input."""
    return zlib.crc32(struct.pack(f"<{len(case.words)}I", *case.words))


def read(path: Path = PATH) -> Golden | None:
    """The committed outputs; those whose input has changed since are left out. None where there is no file."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    outputs = {
        name: tuple(int(word, 16) for word in kept["output"].split())
        for name, kept in content["kernels"].items()
        if name in CASES and kept["input_crc"] == digest(CASES[name])
    }
    return Golden(content["source"], outputs)


def write(golden: Golden, path: Path = PATH) -> None:
    """One line a kernel, words in hexadecimal, so that a change reads well."""
    lines = []
    for name, words in golden.outputs.items():
        kept = {"input_crc": digest(CASES[name]), "output": " ".join(f"{word:x}" for word in words)}
        lines.append(f"  {json.dumps(name)}: {json.dumps(kept)}")
    text = f'{{"source": {json.dumps(golden.source)}, "kernels": {{\n' + ",\n".join(lines) + "\n}}\n"
    atomic_write(path, text.encode())


def differences(case: Case, expected: tuple[int, ...], found: tuple[int, ...]) -> list[str]:
    """A line for each output word that differs by more than the case allows."""
    if len(expected) != len(found):
        return [f"{case.name}: {len(found)} words instead of {len(expected)}"]
    lines = []
    for place, (want, got) in enumerate(zip(expected, found, strict=True)):
        if not near(case, want, got):
            lines.append(f"{case.name}[{place}]: {shown(got)} instead of {shown(want)}")
    return lines


def shown(word: int) -> str:
    return f"{word:#010x} ({as_float(word):g})"


def near(case: Case, want: int, got: int) -> bool:
    """Equal bits, or floats as near as the case allows; NaN is as good as any NaN there."""
    if want == got:
        return True
    if not case.relative and not case.absolute:
        return False
    a, b = as_float(want), as_float(got)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= case.relative * abs(a) + case.absolute


def as_float(word: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", word))[0])
