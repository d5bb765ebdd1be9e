"""`executing`: while it lasts, the package's raw ops run their emulated CUDA kernels instead of the CPU loops.

Not covered: several threads at once (the emulator has one state), torch.compile, and ops that have no CUDA kernel;
those run on the CPU as always and are named in `Run.not_emulated`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from instructgpt_fast.ops import _library as operators
from instructgpt_fast.simt import _library
from instructgpt_fast.simt.report import Launch, Site, launch_of, result_names

SCHEDULES = ("forward", "reverse", "random", "preempting")
COPIES = ("lazy", "eager", "random")
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
MUTATIONS = (
    "drop_barrier", "drop_warp_barrier", "drop_fence", "drop_wait", "drop_arrive", "drop_store", "drop_atomic",
    "shift_load", "shift_store", "wrong_parity", "wrong_bytes", "shuffle_wrong_lane", "drop_commit",
    "drop_product", "shift_tile", "wrong_stride",
)

_running = threading.Lock()


@dataclass(frozen=True)
class Mutation:
    """One way of breaking a kernel: `kind` is one of MUTATIONS, `site` a place ("reductions.cuh:57") of `Run.sites`."""

    kind: str
    site: str


@dataclass
class Run:
    """What happened inside one `executing` block."""

    launches: list[Launch] = field(default_factory=list)
    not_emulated: set[str] = field(default_factory=set)
    sites: tuple[Site, ...] = ()
    mutation_applied: int = 0

    def sites_of(self, kind: str) -> tuple[Site, ...]:
        """The sites at which one kind of mutation is possible."""
        return tuple(site for site in self.sites if site.kind == kind)


@contextmanager
def executing(
    schedule: str = "forward",
    seed: int = 0,
    copies: str = "lazy",
    multiprocessors: int = 4,
    architecture: int = 80,
    most_words: int = 0,
    mutation: Mutation | None = None,
    accounting: bool = False,
    sites: bool = False,
) -> Iterator[Run]:
    """Runs raw ops of this package by their emulated CUDA kernels, on CPU tensors; forward and backward.

    Args:
        schedule: in which order threads run. "forward" and "reverse": each until it waits; "random": any that can run;
            "preempting": the same, and threads also lose their turn at random accesses to memory.
        seed: of the random schedules. The same seed gives the same order.
        copies: when asynchronous copies arrive: "lazy" when they are waited for, "eager" at once, or "random".
        multiprocessors: of the emulated device; kernels size their grids by it.
        architecture: of the emulated device, one of ARCHITECTURES: 90 for sm_90; ops choose their kernels by it, and it
            bounds the shared memory of a block.
        most_words: barriers, shuffles, copies, waits and the like that all threads of a launch may say together before
            the launch is taken to have no end, which a broken kernel may not have; 0 for any number.
        mutation: what to break; None for nothing.
        accounting: fills `Run.launches`.
        sites: fills `Run.sites`, when the block ends.

    Yields:
        The Run, which fills while ops are called. Float memory that a kernel has not written reads as NaN.

    Raises:
        BackendError: when the emulator was not built. ValueError: for an option out of range.
        RuntimeError: inside another `executing`. SimtError: at the call of an op whose kernel breaks a rule.
    """
    _check(schedule, seed, copies, multiprocessors, architecture, most_words, mutation)
    emulator = _library.emulator()
    if not _running.acquire(blocking=False):
        raise RuntimeError("simt.executing: another execution has not ended; there is one emulator in a process")
    run = Run()
    try:
        emulator.begin({
            "schedule": SCHEDULES.index(schedule), "seed": seed, "copies": COPIES.index(copies),
            "multiprocessors": multiprocessors, "architecture": architecture, "most_words": most_words,
            "accounting": int(accounting), "sites": int(sites),
            "mutation": mutation.kind if mutation else "none", "mutation_site": mutation.site if mutation else "",
        })
        with _Redispatch(emulator, run):
            yield run
    finally:
        if sites:
            run.sites = tuple(Site(**site) for site in emulator.sites())
        run.mutation_applied = emulator.mutation_applied()
        emulator.end()
        _running.release()


def _check(
    schedule: str, seed: int, copies: str, multiprocessors: int, architecture: int, most_words: int,
    mutation: Mutation | None,
) -> None:
    choices: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("schedule", schedule, SCHEDULES), ("copies", copies, COPIES), ("architecture", architecture, ARCHITECTURES))
    for name, value, served in choices:
        if value not in served:
            raise ValueError(f"simt.executing: {name} must be one of {', '.join(map(str, served))}, got {value!r}")
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"simt.executing: seed must be in [0, 2^63), got {seed}")
    if not 1 <= multiprocessors < 1 << 31:
        raise ValueError(f"simt.executing: multiprocessors must be in [1, 2^31), got {multiprocessors}")
    if not 0 <= most_words < 1 << 63:
        raise ValueError(f"simt.executing: most_words must be in [0, 2^63), got {most_words}")
    if mutation is not None and mutation.kind not in MUTATIONS:
        raise ValueError(f"simt.executing: a mutation is one of {', '.join(MUTATIONS)}, got {mutation.kind!r}")


class _Redispatch(TorchDispatchMode):
    """Sends raw ops of the package to their emulated kernels."""

    def __init__(self, emulator: _library.Emulator, run: Run) -> None:
        super().__init__()
        self.emulator = emulator
        self.run = run
        self.key = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != operators.NAMESPACE:
            return func(*args, **kwargs)
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _library.DISPATCH_KEY):
            self.run.not_emulated.add(func.name().partition("::")[2])
            return func(*args, **kwargs)
        return self.emulated(func, args, kwargs)

    def emulated(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of the op's emulated kernels."""
        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        self.emulator.op_begins()
        for name, tensor in _named_tensors(named):
            self.emulator.name_buffer(tensor.data_ptr(), _span_bytes(tensor), name)
        try:
            result = func.redispatch(self.key, *args, **kwargs)
        except RuntimeError as error:
            if self.emulator.launch_failed():
                raise _library.SimtError(str(error)) from None
            raise
        finally:
            self.emulator.op_ends()
            launches = self.emulator.take_launches()
        names = result_names(launches, _results(func, result))
        op = func.name().partition("::")[2]
        self.run.launches.extend(launch_of(op, launch, names) for launch in launches)
        return result


def _named_tensors(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the names messages give them: "x", or "tensors[2]" for one of a list."""
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                if isinstance(item, Tensor):
                    yield f"{name}[{i}]", item


def _results(func: Any, result: Any) -> dict[str, Tensor]:
    """An op's results by their names in the schema, "output 0" for one without."""
    values = result if isinstance(result, tuple) else () if result is None else (result,)
    returns = func._schema.returns
    return {
        ret.name or f"output {i}": value
        for i, (ret, value) in enumerate(zip(returns, values, strict=True))
        if isinstance(value, Tensor) and value.numel() > 0
    }


def _span_bytes(tensor: Tensor) -> int:
    """Bytes from a tensor's first to its last element, gaps included."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()
