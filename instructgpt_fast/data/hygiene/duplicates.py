"""Exact duplicates, long common prefixes, and at most N examples a user: one pass over the table a rule.

Rows go to parts by their key, a part fits in memory, and in each group the first record of the input stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from instructgpt_fast.data.hygiene.spill import REMOVAL, Removed, Rows, Spill, blocks, write_removals
from instructgpt_fast.data.hygiene.tables import Table

_KEYED = np.dtype([("high", "<u8"), ("low", "<u8"), ("index", "<i8")])
_OF_USER = np.dtype([("user", "<u8"), ("examples", "<u8"), ("index", "<i8")])


def same_key(table: Table, field: str, earlier: Sequence[Path], target: Path) -> None:
    """Remove each record whose key (`exact` or `prefix`) a record before it has; the key 0, 0 is none.

    earlier: removals of the rules before this one, whose records count no more.
    """
    spill = Spill(target.with_suffix(".keys"), _KEYED, len(table))
    removed = Removed(earlier)
    for start, rows in table.blocks():
        keys = rows[field]
        chosen = np.flatnonzero(removed.left(start, len(rows)) & keys.any(axis=1))
        made = np.empty(len(chosen), dtype=_KEYED)
        made["high"], made["low"], made["index"] = keys[chosen, 0], keys[chosen, 1], chosen + start
        spill.add(made, made["high"] % np.uint64(spill.parts))
    spill.flush()
    found = (rows for part in range(spill.parts) for rows in _repeated(spill.path(part)))
    write_removals(target, found, len(table))
    spill.remove()


def _repeated(path: Path) -> Iterator[Rows]:
    """The rows of a part whose key stood before, with the first row of that key."""
    first = np.empty(0, dtype=_KEYED)  # of each key so far: as many as the part has keys
    for block in blocks(path, _KEYED):
        rows = np.concatenate([first, block])
        rows = rows[np.lexsort((rows["index"], rows["low"], rows["high"]))]
        new = np.ones(len(rows), dtype=np.bool_)
        new[1:] = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
        first = rows[new]
        made = np.empty(np.count_nonzero(~new), dtype=REMOVAL)
        made["index"] = rows["index"][~new]
        made["cause"] = first["index"][(np.cumsum(new) - 1)[~new]]
        yield made


def beyond_user_limit(table: Table, limit: int, earlier: Sequence[Path], target: Path) -> None:
    """Remove each record that, with those of its user before it that are left, gives more than `limit` examples.

    Records without a user stay. Few-shot records give as many examples as they have pairs.
    """
    spill = Spill(target.with_suffix(".users"), _OF_USER, len(table))
    removed = Removed(earlier)
    for start, rows in table.blocks():
        chosen = np.flatnonzero(removed.left(start, len(rows)) & (rows["user"] != 0))
        made = np.empty(len(chosen), dtype=_OF_USER)
        made["user"], made["examples"], made["index"] = rows["user"][chosen], rows["examples"][chosen], chosen + start
        spill.add(made, made["user"] % np.uint64(spill.parts))
    spill.flush()
    found = (rows for part in range(spill.parts) for rows in _beyond(spill.path(part), limit))
    write_removals(target, found, len(table))
    spill.remove()


def _beyond(path: Path, limit: int) -> Iterator[Rows]:
    so_far: dict[int, int] = {}  # examples of each user of the part
    for block in blocks(path, _OF_USER):
        rows = block[np.argsort(block["user"], kind="stable")]
        users, starts = np.unique(rows["user"], return_index=True)
        sums = np.cumsum(rows["examples"])
        own = np.repeat(sums[starts] - rows["examples"][starts], np.diff([*starts, len(rows)]))
        before = np.array([so_far.get(user, 0) for user in users.tolist()], dtype=np.uint64)
        totals: npt.NDArray[np.uint64] = sums - own + np.repeat(before, np.diff([*starts, len(rows)]))
        ends = np.append(starts[1:], len(rows)) - 1
        so_far.update(zip(users.tolist(), totals[ends].tolist(), strict=True))
        beyond = totals > limit
        made = np.empty(np.count_nonzero(beyond), dtype=REMOVAL)
        made["index"], made["cause"] = rows["index"][beyond], -1
        yield made
