"""Near duplicates by MinHash (Broder 1997), joined through buckets on disk (Leskovec et al. 2020, section 3.4).

Records fall into one bucket a band of their signature. In a bucket, in the order of the input, a record is removed when
it is similar to an earlier one that this bucket kept; a record removed in one bucket is removed. So each removed record
has a similar one before it, and the first of any set of similar records stays.
Not covered: similar records that share no bucket (at a threshold of 0.8 three pairs in two hundred of that similarity,
one in a thousand at 0.85), and in one bucket those similar only to a record behind the first `MOST_KEPT` kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.hygiene import grams
from instructgpt_fast.data.hygiene.first_pass import value_of
from instructgpt_fast.data.hygiene.options import Kind, PrepareConfig
from instructgpt_fast.data.hygiene.plan import Contents
from instructgpt_fast.data.hygiene.records import normalized, read_record
from instructgpt_fast.data.hygiene.spill import REMOVAL, Removed, Rows, Spill, block_count, blocks, write_removals
from instructgpt_fast.data.hygiene.tables import Lookup, Table
from instructgpt_fast.data.hygiene.workers import Workers

MOST_KEPT = 4096  # of a bucket are compared with: bounds the time, quadratic otherwise, and the memory
_IN_BUCKET = np.dtype([("bucket", "<u8"), ("index", "<i8")])
_BLOCK = 1 << 14  # signatures in memory at a time: 8 MiB
_MARGIN = 0.15  # four standard errors of an estimate of 0.8: what falls short by so much is not looked at again
_CHOSEN = 1 << 8  # records of a large bucket whose signatures are read together


@dataclass(frozen=True)
class BucketTask:
    """Buckets of one part, and what similarity is found from."""

    path: Path
    table: Table
    threshold: float
    exact: ExactTexts | None


@dataclass(frozen=True)
class ExactTexts:
    """Where the compared texts are read again, for a check by their n-grams themselves."""

    files: tuple[Path, ...]
    kind: Kind
    options: PrepareConfig


def near_duplicates(
    table: Table, threshold: float, exact: ExactTexts | None, earlier: Sequence[Path], target: Path, workers: Workers
) -> None:
    """Remove each record that is similar to one before it: its Jaccard similarity is `threshold` or more.

    exact: None estimates the similarity by the shared part of the signatures. earlier: removals of the rules before.
    """
    bands, rows = grams.bands_of(threshold)
    spill = Spill(target.with_suffix(".buckets"), _IN_BUCKET, len(table) * bands)
    removed = Removed(earlier)
    with table.signatures.open("rb") as signatures:
        for start, records in table.blocks():
            chosen = removed.left(start, len(records)) & (records["grams"] > 0)
            for low in range(0, len(records), _BLOCK):
                some = np.flatnonzero(chosen[low : low + _BLOCK])
                count = len(chosen[low : low + _BLOCK])
                content = signatures.read(4 * grams.SIGNATURE * count)
                values = np.frombuffer(content, dtype="<u4").reshape(count, grams.SIGNATURE)
                _add(spill, grams.band_keys(values[some], bands, rows), some + start + low)
    spill.flush()
    tasks = (BucketTask(spill.path(part), table, threshold, exact) for part in range(spill.parts))
    write_removals(target, workers.map(similar_in_buckets, tasks), len(table))
    spill.remove()


def _add(spill: Spill, keys: npt.NDArray[np.uint64], indices: npt.NDArray[np.int64]) -> None:
    made = np.empty(keys.shape, dtype=_IN_BUCKET)
    made["bucket"], made["index"] = keys, indices[:, None]
    rows = made.T.reshape(-1)
    spill.add(rows, rows["bucket"] % np.uint64(spill.parts))


def similar_in_buckets(task: BucketTask) -> Rows:
    """The removals that the buckets of a part give, as REMOVAL."""
    removals = [np.empty(0, dtype=REMOVAL)]
    kept: dict[int, list[int]] = {}
    with Lookup(task.table) as lookup:
        similar = _by_signature(lookup, task.threshold)
        if task.exact is not None:
            similar = _by_grams(lookup, task.threshold, task.exact)
        many = block_count(task.path, _IN_BUCKET)
        for number, block in enumerate(blocks(task.path, _IN_BUCKET)):
            last = number == many - 1
            found: list[tuple[int, int]] = []
            for bucket, members in _buckets(block, every=not last or number > 0):
                before = kept.get(bucket, [])
                if len(members) + len(before) > 1:
                    before = _compare(before, members, similar, found)
                else:
                    before = members
                if not last:
                    kept[bucket] = before
            removals.append(np.array(found, dtype=REMOVAL))
    return np.concatenate(removals)


def _buckets(block: Rows, *, every: bool) -> Iterator[tuple[int, list[int]]]:
    """The buckets of a block with their members in order; those of one member only if `every`."""
    rows = block[np.lexsort((block["index"], block["bucket"]))]
    starts = np.flatnonzero(grams.unique_rows([rows["bucket"]]))
    ends = np.append(starts[1:], len(rows))
    chosen = np.arange(len(starts)) if every else np.flatnonzero(ends - starts > 1)
    for place in chosen.tolist():
        members = rows["index"][starts[place] : ends[place]].tolist()
        yield int(rows["bucket"][starts[place]]), members


Similar = Callable[[list[int], list[int]], npt.NDArray[np.bool_]]
"""Which of n records are similar to which of m records: [n, m]."""


def _compare(kept: list[int], members: list[int], similar: Similar, found: list[tuple[int, int]]) -> list[int]:
    """Go through the members of a bucket; returns what it keeps, and adds (record, the first similar one) to found."""
    kept = list(kept)
    for low in range(0, len(members), _CHOSEN):
        some = members[low : low + _CHOSEN]
        to_kept = similar(some, kept) if kept else np.zeros((len(some), 0), dtype=np.bool_)
        among = similar(some, some)
        fresh: list[int] = []  # places in `some` that are kept
        old = len(kept)
        for place, member in enumerate(some):
            before = np.flatnonzero(to_kept[place, :old])
            if len(before):
                found.append((member, kept[before[0]]))
                continue
            like = [other for other in fresh if among[place, other]]
            if like:
                found.append((member, some[like[0]]))
            elif old + len(fresh) < MOST_KEPT:
                fresh.append(place)
        kept += [some[place] for place in fresh]
    return kept


def _by_signature(lookup: Lookup, share: float) -> Similar:
    def similar(some: list[int], others: list[int]) -> npt.NDArray[np.bool_]:
        mine = lookup.signatures(some)
        return agreeing(mine, mine if others is some else lookup.signatures(others), share)

    return similar


def agreeing(
    mine: npt.NDArray[np.uint32], theirs: npt.NDArray[np.uint32], share: float
) -> npt.NDArray[np.bool_]:
    """Whether signatures [n, SIGNATURE] and [m, SIGNATURE] have at least this share of their values in common: [n, m].

    Equal values have equal last bytes, which cost a quarter; only pairs with enough of these are compared whole.
    """
    least = share * grams.SIGNATURE
    found = np.zeros((len(mine), len(theirs)), dtype=np.bool_)
    columns = np.ascontiguousarray(theirs.T.astype(np.uint8))
    for place, row in enumerate(mine):
        equal = columns == row.astype(np.uint8)[:, None]
        might = np.flatnonzero(np.add.reduce(equal, axis=0, dtype=np.uint8) >= least)
        found[place, might] = np.count_nonzero(theirs[might] == row, axis=1) >= least
    return found


def _by_grams(lookup: Lookup, threshold: float, texts: ExactTexts) -> Similar:
    likely = _by_signature(lookup, max(0.0, threshold - _MARGIN))

    @lru_cache(maxsize=2 * _CHOSEN)  # all of `some`, and others as they come
    def shingles(index: int) -> grams.Grams:
        row = lookup.record(index)
        path = texts.files[int(row["file"])]
        with Contents() as contents:
            value = value_of(contents.read(path, row), path, texts.options, texts.kind)
        record = read_record(value, texts.kind, texts.options.user_field)
        compared = normalized(record.prompt if texts.options.compare_by == "prompt" else record.whole)
        return np.unique(grams.shingles(grams.words_of(compared), texts.options.near_duplicate_words))

    def similar(some: list[int], others: list[int]) -> npt.NDArray[np.bool_]:
        found = likely(some, others)
        if others is some:
            found = np.tril(found, -1)  # with those before: no more is asked
        for other, place in np.argwhere(found.T).tolist():
            found[place, other] = grams.jaccard(shingles(some[place]), shingles(others[other])) >= threshold
        return found

    return similar
