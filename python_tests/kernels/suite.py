"""What every CUDA kernel must show beyond right numbers, stated once. A kernel's test file derives from `KernelSuite`.

    from python_tests.ops import test_layer_norm          # the module: pytest would collect an imported class twice

    def aligned(inputs):                                   # bytes each raw op loads and stores, by buffer, as a formula
        rows, width = inputs["x"].shape
        return {
            "layer_norm": {"x": (4 * rows * width, 0), "y": (0, 4 * rows * width), "mean": (0, 4 * rows), ...},
            "layer_norm_backward": {...},
        }

    class TestLayerNormKernels(KernelSuite):
        suite = test_layer_norm.TestLayerNorm
        cases = (
            KernelCase("one warp a row", rows(6, 64), traffic=aligned),
            KernelCase("any width", rows(3, 37, residual=True), dtype=torch.bfloat16),
        )
        equivalent = {("shift_load", "const float mean = a.mean[row]"): "all rows of the cases have one mean"}

For each case pytest then shows, in the emulator: results as the op's own suite demands, with equal bits in every order
of the threads; bytes moved equal to `traffic`, in at most 5 % more sectors than there must be; shared memory without
bank conflicts. And for all cases together: every word of the kernel, broken at the place where it is said
(`simt.MUTATIONS`), makes the emulator or the comparer object.

Buffers have the names of the raw op's arguments and results in its schema ("output 0" for a result without a name);
"scratch 0", "scratch 1", ... is what the op allocates besides, in order. A byte that several lanes of one warp ask for
at once counts once; a byte that two warps, or one warp twice, ask for counts twice. Atomic operations do not count.
Cases without `traffic` (odd widths, unaligned rows) take part in everything but the accounts. Keep them tiny: all of
them run under every mutation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from instructgpt_fast import simt
from python_tests.ops.suite import SCHEDULES, Case, Inputs, New, OpSuite, Results, require_same_bits

ROOT = Path(__file__).resolve().parents[2]
SECTORS_AT_MOST = 1.05
PLACES_AT_LEAST = 3

Bytes = tuple[int, int]  # loaded, stored


@dataclass(frozen=True, eq=False)
class KernelCase:
    """One call of the op: how its inputs are drawn, in which dtype, with which keyword arguments, and its traffic."""

    name: str
    inputs: Callable[[New], Inputs]
    dtype: torch.dtype = torch.float32
    options: Mapping[str, Any] = field(default_factory=dict)
    # Raw op -> buffer -> bytes loaded and stored, over all launches of all its calls; buffers left out stay untouched.
    traffic: Callable[[Inputs], Mapping[str, Mapping[str, Bytes]]] | None = None
    multiprocessors: int = 4
    architecture: int = 80  # of the emulated device: which kernels an op chooses

    @property
    def case(self) -> Case:
        """The same as the op's own suite knows it."""
        return Case(self.name, self.inputs, self.options)


@dataclass(frozen=True)
class _Baseline:
    """What a case gives when nothing is broken."""

    results: Results
    references: tuple[Results, Results]
    run: simt.Run

    @property
    def most_words(self) -> int:
        """What a broken kernel may say in a launch: many times what it says whole, for it may wait long."""
        return 100_000 + 20 * max((sum(launch.words.values()) for launch in self.run.launches), default=0)


class KernelSuite:
    """Derive, fill in the class attributes, and pytest does the rest; see the head of this file."""

    suite: ClassVar[type[OpSuite]]
    cases: ClassVar[tuple[KernelCase, ...]]
    # (kind of mutation, part of the source line it strikes) -> why the kernel is still right with it.
    equivalent: ClassVar[Mapping[tuple[str, str], str]] = {}
    # Buffer -> (the share of sectors it may use, why).
    more_sectors: ClassVar[Mapping[str, tuple[float, str]]] = {}
    # Kernel -> (the share of wavefronts it may use, why).
    more_wavefronts: ClassVar[Mapping[str, tuple[float, str]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Spread the cases over the tests that ask for them; those of the accounts need a formula."""
        if not hasattr(type(self), "cases"):
            return
        for argument, cases in (
            ("case", self.cases),
            ("accounted", tuple(case for case in self.cases if case.traffic is not None)),
        ):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, cases, ids=[case.name for case in cases])

    @pytest.fixture(autouse=True)
    def _needs_the_emulator(self) -> None:
        if not simt.available():
            pytest.skip("the emulator was not built (INSTRUCTGPT_FAST_SIMT=ON)")

    def test_every_order_of_threads(self, case: KernelCase) -> None:
        """Right in order, and the same bits in any other order."""
        clean = self._baseline(case)
        self._judge(case, clean.results)
        for schedule in SCHEDULES[1:]:
            require_same_bits(clean.results, self.run_case(case, **schedule)[0])

    def test_bytes_moved(self, accounted: KernelCase) -> None:
        """Every buffer is read and written as often as the formula says."""
        assert accounted.traffic is not None
        expected = {
            op: {name: moved for name, moved in buffers.items() if moved != (0, 0)}
            for op, buffers in accounted.traffic(accounted.inputs(New(accounted.dtype))).items()
        }
        assert _bytes_of(self._baseline(accounted).run.launches) == expected

    def test_sectors(self, accounted: KernelCase) -> None:
        """Warps ask for whole sectors."""
        for launch in self._baseline(accounted).run.launches:
            for name, traffic in launch.buffers.items():
                limit, _ = self.more_sectors.get(name, (SECTORS_AT_MOST, ""))
                for what, used, ideal in (
                    ("load", traffic.load_sectors, traffic.ideal_load_sectors),
                    ("store", traffic.store_sectors, traffic.ideal_store_sectors),
                ):
                    assert used <= limit * ideal, (
                        f"{launch.kernel}: {what}s of {name} take {used} sectors, {ideal} would do:\n{_places(launch)}"
                    )

    def test_bank_conflicts(self, accounted: KernelCase) -> None:
        """Shared memory is read and written in as few wavefronts as there can be."""
        for launch in self._baseline(accounted).run.launches:
            limit, _ = self.more_wavefronts.get(launch.kernel, (1.0, ""))
            assert launch.shared_wavefronts <= limit * launch.ideal_shared_wavefronts, (
                f"{launch.kernel}: shared memory takes {launch.shared_wavefronts} wavefronts, "
                f"{launch.ideal_shared_wavefronts} would do:\n{_places(launch)}"
            )

    def test_broken_kernels_are_found(self) -> None:
        """Each word that can be broken is: the emulator names a fault, or the results are wrong."""
        reached: dict[tuple[str, str], list[KernelCase]] = {}
        for case in self.cases:
            for site in self._baseline(case).run.sites:
                reached.setdefault((site.kind, site.where), []).append(case)
        places = {where for _, where in reached}
        assert len(places) >= PLACES_AT_LEAST, f"only {sorted(places)} can be broken: are there enough cases?"
        unused, survivors = set(self.equivalent), []
        for (kind, where), cases in reached.items():
            if not self._survives(simt.Mutation(kind, where), cases):
                continue
            reasons = {key for key in self.equivalent if key[0] == kind and key[1] in source_line(where)}
            unused -= reasons
            if not reasons:
                survivors.append(f"{kind} at {where}: {source_line(where)}")
        assert not survivors, "these pass as correct:\n" + "\n".join(survivors)
        assert not unused, f"not equivalent, or not there any more: {sorted(unused)}"

    def test_nothing_was_left_out(self) -> None:
        """At least one case is accounted, and every looser bound says why."""
        assert any(case.traffic is not None for case in self.cases), "no case states its traffic"
        reasons = [*self.equivalent.values(), *(why for _, why in (*self.more_sectors.values(),
                                                                   *self.more_wavefronts.values()))]
        assert all(len(why.split()) >= 3 for why in reasons), f"say why in words: {reasons}"

    def _survives(self, mutation: simt.Mutation, cases: list[KernelCase]) -> bool:
        """Whether a kernel broken in this way passes all cases in all orders of its threads.

        A mutation that can do nothing (there is no other element to move to) breaks nothing.
        """
        applied = 0
        for case in cases:
            for schedule in SCHEDULES:
                try:
                    results, run = self.run_case(
                        case, mutation=mutation, most_words=self._baseline(case).most_words, **schedule)
                    self._judge(case, results)
                except (simt.SimtError, AssertionError):
                    return False
                applied += run.mutation_applied
                if run.mutation_applied == 0:
                    break
        return applied > 0

    def _judge(self, case: KernelCase, results: Results) -> None:
        self.suite().judge_results(results, *self._baseline(case).references, case.case, case.dtype)

    def run_case(self, case: KernelCase, **executing: Any) -> tuple[Results, simt.Run]:
        """The results of the emulated kernels; the op's function may come from the class or from an instance."""
        suite = self.suite()
        device = {"multiprocessors": case.multiprocessors, "architecture": case.architecture}
        with simt.executing(**device, **executing) as run:
            results = suite.evaluate(suite.op, case.inputs(New(case.dtype)), case.case)
        assert not run.not_emulated, f"no emulated kernel of {sorted(run.not_emulated)}"
        return results, run

    @classmethod
    @lru_cache(maxsize=256)
    def _baseline(cls, case: KernelCase) -> _Baseline:
        results, run = cls().run_case(case, accounting=True, sites=True, **SCHEDULES[0])
        return _Baseline(results, cls.suite().references(case.inputs(New(case.dtype)), case.case), run)


def _bytes_of(launches: list[simt.Launch]) -> dict[str, dict[str, Bytes]]:
    """Raw op -> buffer -> bytes loaded and stored, of buffers that were."""
    moved: dict[str, dict[str, Bytes]] = {}
    for launch in launches:
        buffers = moved.setdefault(launch.op, {})
        for name, traffic in launch.buffers.items():
            loaded, stored = buffers.get(name, (0, 0))
            if traffic.loaded_bytes or traffic.stored_bytes:
                buffers[name] = (loaded + traffic.loaded_bytes, stored + traffic.stored_bytes)
    return moved


def _places(launch: simt.Launch) -> str:
    """The lines of the source that take more than they must, the worst first."""
    wasteful = sorted((p for p in launch.places if p.cost > p.ideal), key=lambda p: p.ideal - p.cost)
    return "\n".join(f"  {p.where}: {p.space} {p.direction}, {p.cost} for {p.ideal}" for p in wasteful)


@lru_cache(maxsize=4096)
def source_line(where: str) -> str:
    path, _, line = where.rpartition(":")
    return (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
