"""What people who ranked answers say about two checkpoints: who wins, how good each is, and what is wrong with it.

The jsonl is what the labelling page exports: a comparison, with "checkpoints" (whose answer each completion is) and
"ratings" ({"overall": 1..7, "fields": {name: true | false}} of each completion).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from instructgpt_fast.data import Comparison, OnBadLine, read_jsonl
from instructgpt_fast.data.examples import ExampleKind
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate.items import identity_of
from instructgpt_fast.evaluate.measure import Measure, ratio_of
from instructgpt_fast.evaluate.result import told_apart
from instructgpt_fast.files import run_and_step


@dataclass(frozen=True)
class Judged(ExampleKind):
    """One labeler's ranking of answers to a prompt, with whose they are and how each was rated."""

    prompt: str  # as JSON: labels of one prompt belong together
    ranks: tuple[int, ...]
    checkpoints: tuple[str, ...]
    ratings: tuple[Mapping[str, Any], ...]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build it from {"prompt", "completions", "ranks", "checkpoints"} and, where there are, "ratings"."""
        comparison = Comparison.from_record(record)
        count = len(comparison.completions)
        checkpoints = record.get("checkpoints")
        if not isinstance(checkpoints, list) or len(checkpoints) != count or not all(
            isinstance(name, str) for name in checkpoints
        ):
            raise DataError(
                f"judgment: 'checkpoints' must name the model of each of the {count} completions, got {checkpoints!r}"
            )
        ratings = record.get("ratings")
        if ratings is None:
            ratings = [{}] * count
        if not isinstance(ratings, list) or len(ratings) != count or not all(map(_is_rating, ratings)):
            raise DataError(
                f"judgment: 'ratings' must hold for each of the {count} completions an object with \"overall\", a "
                f"whole number or null, and \"fields\", of which each is true, false or null; got {ratings!r}"
            )
        prompt = json.dumps(record["prompt"], sort_keys=True, ensure_ascii=False)
        return cls(prompt, comparison.ranks, tuple(checkpoints), tuple(ratings))


def _is_rating(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    overall, fields = value.get("overall"), value.get("fields", {})
    whole = overall is None or (isinstance(overall, int) and not isinstance(overall, bool))
    return whole and isinstance(fields, Mapping) and all(isinstance(each, bool | None) for each in fields.values())


@dataclass
class _Sums:
    """Of one prompt: what all its labels say, as sums and counts."""

    wins: np.ndarray = field(default_factory=lambda: np.zeros(2))  # of the first, ties half; pairs
    ties: np.ndarray = field(default_factory=lambda: np.zeros(2))
    overall: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))  # of each: sum of ratings, ratings
    fields: dict[str, np.ndarray] = field(default_factory=dict)  # name -> of each: times yes, times asked

    def add(self, label: Judged, whose: Sequence[int | None]) -> None:
        own = [[place for place, one in enumerate(whose) if one == side] for side in (0, 1)]
        for i in own[0]:
            for j in own[1]:
                gap = label.ranks[j] - label.ranks[i]
                self.wins += (0.5 * (np.sign(gap) + 1.0), 1.0)
                self.ties += (float(gap == 0), 1.0)
        for side in (0, 1):
            for place in own[side]:
                self._rate(side, label.ratings[place])

    def _rate(self, side: int, rating: Mapping[str, Any]) -> None:
        overall = rating.get("overall")
        if overall is not None:
            self.overall[side] += (overall, 1.0)
        for name, value in rating.get("fields", {}).items():
            if value is not None:
                self.fields.setdefault(name, np.zeros((2, 2)))[side] += (float(value), 1.0)


def measure_judgments(
    path: str, pair: Sequence[str], on_bad_line: OnBadLine = "error", limit: int | None = None
) -> list[Measure]:
    """Win rate of pair[0] over pair[1], share of ties, mean overall rating of each, share of yes to each question.

    pair: two checkpoints by path or by their run's name, as "checkpoints" has them. limit: the first so many labels.
    Raises DataError with file and line, and when no label has answers of both.
    """
    labels = read_jsonl(path, Judged, on_bad_line=on_bad_line)
    prompts: dict[str, _Sums] = {}
    for label in labels[:limit]:
        whose = [side_of(name, pair) for name in label.checkpoints]
        if 0 in whose and 1 in whose:
            prompts.setdefault(label.prompt, _Sums()).add(label, whose)
    if not prompts:
        known = sorted({name for label in labels for name in label.checkpoints})
        raise DataError(
            f"win_rate: a label must rank answers of both {pair[0]} and {pair[1]}, got labels of {', '.join(known)}; "
            "name two of these", path,
        )
    sums = list(prompts.values())
    data = identity_of(list(prompts))
    names = told_apart(pair)
    found = [
        _measure("win_rate", [each.wins for each in sums], data),
        _measure("ties", [each.ties for each in sums], data, higher_is_better=None),
    ]
    if sum(each.overall[:, 1].sum() for each in sums):
        found += [
            _measure(f"overall_{name}", [each.overall[side] for each in sums], data, bounds=(-np.inf, np.inf))
            for side, name in enumerate(names)
        ]
    for question in sorted({name for each in sums for name in each.fields}):
        none = np.zeros((2, 2))
        found += [
            _measure(f"{question}_{name}", [each.fields.get(question, none)[side] for each in sums], data,
                     higher_is_better=None)
            for side, name in enumerate(names)
        ]
    return found


def side_of(name: str, pair: Sequence[str]) -> int | None:
    """Which of the pair a label means, None for neither: by path, or by the run's name where that tells them apart."""
    folder, step = run_and_step(name)
    for same in ("path", "name"):
        found = []
        for side, one in enumerate(pair):
            its_folder, its_step = run_and_step(one)
            fits = folder == its_folder if same == "path" else folder.name == its_folder.name
            # A run stands for each of its checkpoints, a checkpoint for no other of its run.
            if fits and (step == its_step or None in (step, its_step)):
                found.append((step == its_step, side))
        exact = [side for equal, side in found if equal]
        if len(exact) == 1 or len(found) == 1:
            return exact[0] if exact else found[0][1]
    return None


def _measure(
    metric: str, items: Sequence[np.ndarray], data: str, *, bounds: tuple[float, float] = (0.0, 1.0),
    higher_is_better: bool | None = True,
) -> Measure:
    stacked = np.array(items)
    return Measure(
        "win_rate", metric, stacked, ratio_of, bounds=bounds, higher_is_better=higher_is_better, data=data,
        count=int(stacked[:, 1].sum()),
    )
