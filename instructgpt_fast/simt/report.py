"""What a launch did, as plain data: the account that csrc/simt/accounting.h describes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from instructgpt_fast.simt import _library


@dataclass(frozen=True)
class Traffic:
    """Bytes and 32-byte sectors that one launch moved from and to one buffer.

    A byte that several lanes of a warp ask for in one access counts once; `unique` counts it once for the whole launch.
    """

    size: int = 0
    loaded_bytes: int = 0
    unique_loaded_bytes: int = 0
    load_sectors: int = 0
    ideal_load_sectors: int = 0
    stored_bytes: int = 0
    unique_stored_bytes: int = 0
    store_sectors: int = 0
    ideal_store_sectors: int = 0
    atomic_bytes: int = 0


@dataclass(frozen=True)
class Place:
    """Warp accesses at one line of the source: `cost`, in sectors (global) or wavefronts (shared), and the least."""

    site: str
    program_counter: int
    space: str
    direction: str
    accesses: int
    bytes: int
    cost: int
    ideal: int

    @property
    def where(self) -> str:
        """File and line; of a raw access it is looked up when asked for, which takes some milliseconds."""
        return self.site or _described(self.program_counter)


@dataclass(frozen=True)
class Site:
    """A place whose words can be broken by the mutation `kind`; `visits` counts threads that came by."""

    kind: str
    where: str
    visits: int


@dataclass(frozen=True)
class Launch:
    """One kernel launch: of which raw op, with how many blocks and threads, and what it moved."""

    op: str
    kernel: str
    grid: tuple[int, int]
    block: tuple[int, int]
    static_shared_bytes: int
    dynamic_shared_bytes: int
    buffers: Mapping[str, Traffic]
    places: tuple[Place, ...]
    words: Mapping[str, int]
    shared_wavefronts: int
    ideal_shared_wavefronts: int

    @property
    def threads(self) -> int:
        """Of the whole launch."""
        return self.grid[0] * self.grid[1] * self.block[0] * self.block[1]

    @property
    def block_barriers(self) -> float:
        """How many block barriers a thread passes, on average."""
        names = ("block_barrier", "block_barrier_or", "block_barrier_count")
        return sum(self.words.get(name, 0) for name in names) / self.threads


@lru_cache(maxsize=4096)
def _described(program_counter: int) -> str:
    return _library.emulator().describe(program_counter)


def launch_of(op: str, raw: Mapping[str, Any], names: Mapping[str, str]) -> Launch:
    """The launch that the emulator described, its buffers renamed by `names` and in alphabetical order."""
    buffers = {names.get(b["name"], b["name"]): _traffic_of(b) for b in raw["buffers"]}
    return Launch(
        op=op,
        kernel=raw["kernel"],
        grid=(raw["grid"][0], raw["grid"][1]),
        block=(raw["block"][0], raw["block"][1]),
        static_shared_bytes=raw["static_shared_bytes"],
        dynamic_shared_bytes=raw["dynamic_shared_bytes"],
        buffers={name: buffers[name] for name in sorted(buffers)},
        places=tuple(Place(**place) for place in raw["places"]),
        words=dict(raw["words"]),
        shared_wavefronts=raw["wavefronts"],
        ideal_shared_wavefronts=raw["ideal_wavefronts"],
    )


def _traffic_of(raw: Mapping[str, Any]) -> Traffic:
    load, store, atomic = raw["loads"], raw["stores"], raw["atomics"]
    return Traffic(
        size=raw["size"],
        loaded_bytes=load["bytes"],
        unique_loaded_bytes=load["unique"],
        load_sectors=load["sectors"],
        ideal_load_sectors=load["ideal"],
        stored_bytes=store["bytes"],
        unique_stored_bytes=store["unique"],
        store_sectors=store["sectors"],
        ideal_store_sectors=store["ideal"],
        atomic_bytes=atomic["bytes"],
    )


def result_names(launches: Iterable[Mapping[str, Any]], results: Mapping[str, Tensor]) -> dict[str, str]:
    """The emulator's name of what an op allocated ("new 3") -> the name of the result it became, or "scratch 0"."""
    allocated = {b["name"]: b for raw in launches for b in raw["buffers"] if b["name"].startswith("new ")}
    names: dict[str, str] = {}
    for emulated, buffer in sorted(allocated.items(), key=lambda item: int(item[0].removeprefix("new "))):
        begin, end = buffer["begin"], buffer["begin"] + buffer["size"]
        became = [name for name, tensor in results.items() if begin <= tensor.data_ptr() < end]
        scratch = sum(name.startswith("scratch ") for name in names.values())
        names[emulated] = became[0] if became else f"scratch {scratch}"
    return names
