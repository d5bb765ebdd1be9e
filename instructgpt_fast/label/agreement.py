"""How far labelers agree where they labelled the same prompts.

Pairs of answers of one prompt share their answers and their labelers, so they are not independent: intervals treat the
prompt as the sampling unit (ratio estimator; Cochran 1977, Sampling Techniques, section 2.11), with Student's t.
The paper prints 72.6 +- 1.5 % of pairs for the training labelers and 77.3 +- 1.3 % for held-out ones [P: section 3.4];
it does not say how ties are counted. Ours [O]: `agreement` leaves out the pairs that either labeler ties, as reward
training leaves them out; `agreement_with_ties` takes all pairs and asks for equal words: better, worse or equal.
Not covered: which labeler is right.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from instructgpt_fast.label.checks import ranks_of
from instructgpt_fast.label.form import FIELD_NAMES
from instructgpt_fast.label.schema import open_database, transaction

_RANKINGS = """
    SELECT tasks.prompt_id, labels.labeler_id, labels.payload FROM labels JOIN tasks ON tasks.id = labels.task_id
    WHERE labels.status = 'done' AND tasks.kind = 'ranking' ORDER BY tasks.prompt_id, labels.labeler_id
"""


@dataclass(frozen=True)
class Rate:
    """A mean over `count` judged pairs on `prompts` prompts; half_width of its 95 % interval, None for one prompt."""

    value: float | None
    half_width: float | None
    count: int
    prompts: int


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of a yes/no field, over `count` answers judged by two labelers, and how often they say the same."""

    value: float | None
    agreement: float | None
    count: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of labelers over their common prompts.

    prompts: that at least two have ranked. agreement, agreement_with_ties: shares of pairs of answers, see above.
    overall: mean absolute difference of the overall quality, in points of 1 to 7. fields: one a yes/no question.
    """

    labelers: int
    prompts: int
    agreement: Rate
    agreement_with_ties: Rate
    overall: Rate
    fields: dict[str, Kappa]

    def described(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The numbers as a table of plain text."""
        lines = [("what", "value", "95 %", "over", "prompts")]
        for name, rate in (("pairs, ties left out", self.agreement), ("pairs, ties as such", self.agreement_with_ties),
                           ("overall, mean difference", self.overall)):
            lines.append((name, _words(rate.value), "" if rate.half_width is None else f"+- {rate.half_width:.4f}",
                          f"{rate.count:,}", f"{rate.prompts:,}"))
        lines += [(f"{name}, kappa", _words(kappa.value), "", f"{kappa.count:,}", "")
                  for name, kappa in self.fields.items()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in lines)
        return f"{self.labelers} labelers, {self.prompts:,} prompts ranked by two or more\n{table}"


def agreement(database: str | os.PathLike[str]) -> Agreement:
    """Measure the agreement of labelers in a database; a server may be running. Raises DataError as `export` does."""
    connection = open_database(database)
    try:
        with transaction(connection, writing=False):
            return measured(connection)
    finally:
        connection.close()


def measured(connection: sqlite3.Connection) -> Agreement:
    """The agreement of the finished rankings of an open database."""
    return agreement_of((row[0], row[1], json.loads(row[2])) for row in connection.execute(_RANKINGS))


def agreement_of(labels: Iterable[tuple[int, int, dict[str, Any]]]) -> Agreement:
    """The agreement of finished rankings, given as (prompt, labeler, payload), those of a prompt one after another."""
    # One (sum, count) a prompt for each mean.
    strict: list[tuple[float, int]] = []
    ties: list[tuple[float, int]] = []
    differences: list[tuple[float, int]] = []
    # Field -> pair of labelers -> counts of (first says yes, second says yes).
    said: dict[str, dict[tuple[int, int], dict[tuple[bool, bool], int]]] = {
        name: defaultdict(lambda: defaultdict(int)) for name in FIELD_NAMES
    }
    labelers: set[int] = set()
    for _, group in itertools.groupby(labels, key=lambda item: item[0]):
        pairs = list(itertools.combinations([(labeler, payload) for _, labeler, payload in group], 2))
        if not pairs:
            continue
        found = [_compare(first, second) for (_, first), (_, second) in pairs]
        for total, place in ((strict, 0), (ties, 1), (differences, 2)):
            total.append((sum(one[place][0] for one in found), sum(one[place][1] for one in found)))
        for (one, first), (other, second) in pairs:
            labelers |= {one, other}
            _count_fields(said, (one, other), first["ratings"], second["ratings"])
    return Agreement(
        len(labelers), len(strict), _rate(strict), _rate(ties), _rate(differences),
        {name: _kappa(list(tables.values())) for name, tables in said.items()},
    )


_Sum = tuple[float, int]


def _compare(first: dict[str, Any], second: dict[str, Any]) -> tuple[_Sum, _Sum, _Sum]:
    """Of two labels of a prompt: pairs alike among those nobody ties, pairs alike of all, absolute differences."""
    one, other = ranks_of(first["ranking"]), ranks_of(second["ranking"])
    orders = [
        (_order(one[a], one[b]), _order(other[a], other[b])) for a, b in itertools.combinations(sorted(one), 2)
    ]
    untied = [mine == theirs for mine, theirs in orders if mine and theirs]
    overall = [
        abs(rating["overall"] - second["ratings"][identity]["overall"])
        for identity, rating in first["ratings"].items()
        if rating["overall"] is not None and second["ratings"][identity]["overall"] is not None
    ]
    alike = sum(mine == theirs for mine, theirs in orders)
    return (sum(untied), len(untied)), (alike, len(orders)), (sum(overall), len(overall))


def _order(a: int, b: int) -> int:
    return (a > b) - (a < b)


def _count_fields(
    said: dict[str, dict[tuple[int, int], dict[tuple[bool, bool], int]]], labelers: tuple[int, int],
    first: dict[str, Any], second: dict[str, Any],
) -> None:
    for identity, rating in first.items():
        for name, value in rating["fields"].items():
            other = second[identity]["fields"][name]
            if value is not None and other is not None:
                said[name][labelers][value, other] += 1


def _rate(clusters: Sequence[_Sum]) -> Rate:
    """Ratio of sums with its interval; clusters: (sum, count) of each prompt, those without a count left out."""
    from instructgpt_fast.evaluate.intervals import t_quantile

    counted = [(total, count) for total, count in clusters if count]
    count, prompts = sum(count for _, count in counted), len(counted)
    if not count:
        return Rate(None, None, 0, 0)
    value = sum(total for total, _ in counted) / count
    if prompts < 2:
        return Rate(value, None, count, prompts)
    spread = sum((total - value * own) ** 2 for total, own in counted)
    error = math.sqrt(prompts / (prompts - 1) * spread) / count
    return Rate(value, t_quantile(prompts - 1) * error, count, prompts)


def _kappa(tables: Sequence[dict[tuple[bool, bool], int]]) -> Kappa:
    """Cohen's kappa (Cohen 1960) of two labelers; of more, the mean over pairs of labelers weighted by their answers.

    A pair of labelers who both always say the same word has no kappa: chance alone would make them agree. It is left
    out of the mean, and the value is None where no pair has one.
    """
    weighted, weight, same, count = 0.0, 0, 0, 0
    for table in tables:
        total = sum(table.values())
        observed = table[True, True] + table[False, False]
        one, other = table[True, True] + table[True, False], table[True, True] + table[False, True]
        # Counts, times the total: whole numbers, so that "no kappa" is exact.
        expected = one * other + (total - one) * (total - other)
        same, count = same + observed, count + total
        if expected < total * total:
            weighted += total * (total * observed - expected) / (total * total - expected)
            weight += total
    return Kappa(weighted / weight if weight else None, same / count if count else None, count)


def _words(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
