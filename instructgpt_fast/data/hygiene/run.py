"""The pipeline: read, rules for one text, rules between records, splits, rules of the training split, files.

Memory is bounded by the largest record, the evaluation files and the list of input files, not by the input: what is
known of records goes through files. Every part is one file that appears when it is whole, so that a run that was killed
goes on behind its last part and ends with the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from instructgpt_fast.config import to_dict
from instructgpt_fast.data.hygiene import contamination, first_pass, grams, last_pass
from instructgpt_fast.data.hygiene.duplicates import beyond_user_limit, same_key
from instructgpt_fast.data.hygiene.folder import REPORT, RunFolder, check_apart
from instructgpt_fast.data.hygiene.kinds import kind_of_files
from instructgpt_fast.data.hygiene.language import check_languages
from instructgpt_fast.data.hygiene.near_duplicates import ExactTexts, near_duplicates
from instructgpt_fast.data.hygiene.options import Kind, PrepareConfig
from instructgpt_fast.data.hygiene.pii import find_pii
from instructgpt_fast.data.hygiene.plan import (
    CHANGED,
    Piece,
    chunks,
    fingerprint,
    fingerprint_text,
    input_files,
    stamps,
)
from instructgpt_fast.data.hygiene.report import Report, Totals
from instructgpt_fast.data.hygiene.spill import Removed
from instructgpt_fast.data.hygiene.tables import Lookup, Placed, Table, placed
from instructgpt_fast.data.hygiene.workers import Workers
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.files import atomic_write

FORMAT = 2
_NOT_IDENTITY = ("output_dir", "resume", "processes", "progress")  # change none of the output's bytes
_MANY_BYTES = 1 << 24  # below, starting processes takes longer than they save


def prepare(config: PrepareConfig | None = None, **options: Any) -> Report:
    """Clean data and split it into train, valid and test; returns the report.

    config: a `PrepareConfig`; or its options by name, where a single path does for `data` and `contamination`:
    `prepare(data="prompts.jsonl", output_dir="clean")`. A finished run is not done again, an interrupted one goes on.
    Raises ConfigError for options and folders, DataError with file and line for input that cannot be read and when no
    record is left.
    """
    if config is None:
        for name in ("data", "contamination"):
            if isinstance(options.get(name), str | os.PathLike):
                options[name] = (os.fspath(options[name]),)
        config = PrepareConfig(**options)
    elif options:
        raise ConfigError(f"prepare: give a PrepareConfig or options, got both ({', '.join(options)}); leave one out")
    check_packages(config)
    files = input_files(config.data)
    evaluation = input_files(config.contamination)
    check_apart(config.output_dir, (*config.data, *config.contamination))
    kind = kind_of_files(files, config)
    chosen = {name: value for name, value in to_dict(config).items() if name not in _NOT_IDENTITY}
    identity = fingerprint_text([FORMAT, kind, chosen, fingerprint(files), fingerprint(evaluation)])
    with RunFolder(config.output_dir, identity, resume=config.resume) as folder:
        found = folder.report()
        if found is None:
            found = _run(config, kind, files, evaluation, folder)
        folder.finish()
        report = Report(folder.root, found)
    if not report.records:
        raise DataError("prepare: the data must hold at least one record, got none", files[0])
    if not sum(counts["records"] for counts in report.splits.values()):
        why = ", ".join(f"{rule} {count:,}" for rule, count in report.removed.items())
        raise DataError(f"prepare: a record must be left, got all removed ({why}); see what it says",
                        report.output_dir / "removed.jsonl")
    return report


def check_packages(config: PrepareConfig) -> None:
    """Raise ConfigError before any work for a package that is missing, an unknown language or region."""
    if config.languages:
        check_languages(config.languages)
    if config.pii != "off":
        find_pii("", config.pii_regions)
    if config.near_duplicates is not None:
        grams.signature(grams.shingles(grams.words_of("one"), 1))


def _run(
    config: PrepareConfig, kind: Kind, files: list[Path], evaluation: list[Path], folder: RunFolder
) -> dict[str, Any]:
    try:
        before = stamps(files)
        processes = config.processes or (_cores() if sum(size for size, _ in before) >= _MANY_BYTES else 1)
        with Workers(processes) as workers:
            return _Run(config, kind, files, before, evaluation, folder, workers).run()
    except OSError as error:  # of writing is told where it happens
        raise DataError(f"prepare: cannot read the file ({error.strerror}); check that it is there and run again",
                        error.filename) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Run:
    """One run: its parts in order, each passed over when its file is there."""

    config: PrepareConfig
    kind: Kind
    files: list[Path]
    stamps: list[tuple[int, int]]  # of the files, when the run began
    evaluation: list[Path]
    folder: RunFolder
    workers: Workers
    seconds: dict[str, float] = field(default_factory=dict)
    told: float = 0.0

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        resumed = any(self.folder.work.iterdir())
        work = self.folder.work
        if self.evaluation and not (work / "contamination.json").exists():
            self._timed("contamination", lambda: contamination.build(self.evaluation, work))
        self._timed("first pass", self._first_pass)
        table = Table(work)
        if not table.path.exists():
            self._timed("table", lambda: table.write(placed(self._cut(), work, signatures=True)))
        rules = self._between_records(table)
        totals, lines = Totals.none(), [0] * len(self.files)
        self._timed("last pass", lambda: self._last_pass(table, rules, lines))
        inputs = [self._about_input(file, count) for file, count in zip(self.files, lines, strict=True)]
        self._check_unchanged()
        outputs = self._timed("files", lambda: self._outputs(totals))
        found = {
            "format": FORMAT, "identity": self.folder.identity, "kind": self.kind, "options": to_dict(self.config),
            **totals.as_dict(), "contamination": self._contamination(totals),
            "inputs": inputs, "lines": sum(lines), "files": outputs,
        }
        elapsed = time.monotonic() - started
        found["timing"] = {
            "seconds": round(elapsed, 3), "resumed": resumed, "processes": self.workers.processes,
            # Of a resumed run only the rest was timed.
            "lines_per_second": None if resumed else round(sum(lines) / max(elapsed, 1e-9), 1),
            "parts": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        atomic_write(self.folder.root / REPORT, json.dumps(found, indent=1, ensure_ascii=False) + "\n", error=DataError)
        return found

    def _check_unchanged(self) -> None:
        """Raise DataError when a file is not what it was; the work is given up, as some of it is of the old one."""
        for path, before, now in zip(self.files, self.stamps, stamps(self.files), strict=True):
            if before != now:
                self.folder.finish()
                raise DataError(f"{CHANGED}, got it written to; run again", path)

    def _timed(self, name: str, part: Any) -> Any:
        started = time.monotonic()
        result = part()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        self._tell(f"{name}: {self.seconds[name]:.1f} s")
        return result

    def _tell(self, text: str, *, every: float = 0.0) -> None:
        now = time.monotonic()
        if self.config.progress and now - self.told >= every:
            self.told = now
            sys.stderr.write(f"prepare: {text}\n")

    def _cut(self) -> Iterator[tuple[Piece, ...]]:
        return chunks(self.files, [size for size, _ in self.stamps], self.config.text_unit)

    def _files_of(self, pieces: Sequence[Piece]) -> tuple[Path, ...]:
        return tuple(self.files[piece.file] for piece in pieces)

    def _first_pass(self) -> None:
        work = self.folder.work
        if (work / "records.rows").exists():
            return
        total, done = sum(size for size, _ in self.stamps), 0
        tasks = (
            first_pass.FirstTask(number, pieces, self._files_of(pieces), self.kind, self.config, work)
            for number, pieces in enumerate(self._cut())
        )
        sizes = (sum(piece.end - piece.start for piece in pieces) for pieces in self._cut())
        for _ in self.workers.map(first_pass.run, tasks):
            done += next(sizes)
            self._tell(f"first pass, {done / max(total, 1):.0%}", every=5.0)

    def _between_records(self, table: Table) -> list[tuple[str, Path]]:
        """Apply the rules between records in their order; returns each with the file of its removals."""
        config = self.config
        exact = None
        if config.near_duplicate_check == "exact":
            exact = ExactTexts(tuple(self.files), self.kind, config)
        steps: dict[str, Any] = {"exact_duplicate": functools.partial(same_key, table, "exact")}
        if config.prefix_characters is not None:
            steps["common_prefix"] = functools.partial(same_key, table, "prefix")
        if config.near_duplicates is not None:
            steps["near_duplicate"] = functools.partial(
                near_duplicates, table, config.near_duplicates, exact, workers=self.workers)
        if config.max_per_user is not None:
            steps["user_limit"] = functools.partial(beyond_user_limit, table, config.max_per_user)
        done: list[tuple[str, Path]] = []
        for rule, step in steps.items():
            target = self.folder.work / f"{rule}.removed"
            if not target.exists():
                earlier = [path for _, path in done]
                self._timed(rule, functools.partial(step, earlier=earlier, target=target))
            done.append((rule, target))
        return done

    def _last_pass(self, table: Table, rules: list[tuple[str, Path]], lines: list[int]) -> None:
        records = max(len(table), 1)
        removed = Removed([path for _, path in rules])
        with Lookup(table) as lookup:

            def task(chunk: Placed) -> last_pass.LastTask:
                for piece, count in zip(chunk.pieces, chunk.found.lines, strict=True):
                    lines[piece.file] += count
                gone = []
                for (rule, _), rows in zip(rules, removed.among(chunk.first, len(chunk.found.rows)), strict=True):
                    for index, cause in rows.tolist():
                        gone.append((index - chunk.first, rule, self._detail(lookup, cause)))
                return last_pass.LastTask(
                    chunk.number, self._files_of(chunk.pieces), chunk.before, tuple(gone), self.kind, self.config,
                    self.folder.work,
                )

            first = {}

            def tasks() -> Iterator[last_pass.LastTask]:
                for chunk in placed(self._cut(), self.folder.work):
                    first[chunk.number] = chunk.first
                    yield task(chunk)

            for number in self.workers.map(last_pass.run, tasks()):
                self._tell(f"last pass, {first.pop(number) / records:.0%}", every=5.0)

    def _detail(self, lookup: Lookup, cause: int) -> Any:
        if cause < 0:
            return {"max_per_user": self.config.max_per_user}
        row = lookup.record(cause)
        return {"same_as": f"{self.files[int(row['file'])]}:{int(row['line'])}"}

    def _outputs(self, totals: Totals) -> dict[str, dict[str, Any]]:
        """Join the chunks' lines into the output files; sums the counts on the way."""
        found = {}
        for place, name in enumerate(last_pass.OUTPUTS):
            mark = hashlib.sha256()

            def content(file: IO[bytes], place: int = place, mark: Any = mark) -> None:
                for number, _ in enumerate(self._cut()):
                    head, part = last_pass.read(self.folder.work, number, place)
                    if place == 0:
                        totals.add(head)
                    file.write(part)
                    mark.update(part)

            path = atomic_write(self.folder.root / f"{name}.jsonl", content, error=DataError)
            found[path.name] = {"bytes": path.stat().st_size, "sha256": mark.hexdigest()}
        return found

    def _contamination(self, totals: Totals) -> list[dict[str, Any]]:
        if not self.evaluation:
            return []
        index = contamination.load(self.folder.work)
        hits = [0] * len(index.files)
        for text in totals.found:
            hits[index.file_of(text)] += 1
        starts = [0, *index.ends[:-1]]
        return [
            {"file": name, "texts": end - start, "too_short": short, "found": hit,
             "training_records_removed": totals.leaked[str(number)]}
            for number, (name, start, end, short, hit) in enumerate(
                zip(index.files, starts, index.ends, index.short, hits, strict=True))
        ]

    def _about_input(self, path: Path, lines: int) -> dict[str, Any]:
        with path.open("rb") as file:
            mark = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": str(path), "bytes": path.stat().st_size, "lines": lines, "sha256": mark}
