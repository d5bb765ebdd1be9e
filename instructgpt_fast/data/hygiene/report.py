"""What a run of `prepare` found, as report.json has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RULES = ("unreadable", "length", "quality", "language", "exact_duplicate", "common_prefix", "near_duplicate",
         "user_limit", "contamination", "pii")
"""The rules in the order in which they are applied; a record is counted by the first that removes it."""


@dataclass(frozen=True)
class Report:
    """The result of a run.

    output_dir: where the files are. content: report.json as it stands.
    """

    output_dir: Path
    content: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What the records are."""
        return str(self.content["kind"])

    @property
    def records(self) -> int:
        """Records of the input, those that cannot be read among them."""
        return int(self.content["records"])

    @property
    def removed(self) -> dict[str, int]:
        """Records removed by each rule that removed any, in the rules' order."""
        return dict(self.content["removed"])

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """Of train, valid and test: "records" and "examples"; a few-shot record has as many examples as pairs."""
        return {name: dict(counts) for name, counts in self.content["splits"].items()}

    @property
    def train(self) -> Path:
        """The training split."""
        return self.output_dir / "train.jsonl"

    @property
    def valid(self) -> Path:
        """The validation split."""
        return self.output_dir / "valid.jsonl"

    @property
    def test(self) -> Path:
        """The test split."""
        return self.output_dir / "test.jsonl"

    def __str__(self) -> str:
        """The counts as a table of plain text."""
        lines = [("records", self.records), *((f"- {rule}", count) for rule, count in self.removed.items())]
        for name, counts in self.splits.items():
            lines.append((name, counts["records"]))
            if counts["examples"] != counts["records"]:
                lines.append((f"{name}, examples", counts["examples"]))
        width = max(len(name) for name, _ in lines)
        rows = [f"{name:<{width}}  {count:>12,}" for name, count in lines]
        for about in self.content["contamination"]:
            rows.append(f"{about['file']}: {about['found']:,} of {about['texts']:,} texts found in training records")
        return "\n".join(rows)


@dataclass
class Totals:
    """Counts summed over the chunks."""

    records: Counter[str]
    examples: Counter[str]
    rules: Counter[str]
    private: Counter[str]
    leaked: Counter[str]
    found: set[int]
    masked: int = 0

    @classmethod
    def none(cls) -> Totals:
        """Nothing counted yet."""
        return cls(Counter(), Counter(), Counter(), Counter(), Counter(), set())

    def add(self, head: Mapping[str, Any]) -> None:
        """Add the counts of a chunk's last file."""
        for name in ("records", "examples", "rules", "private", "leaked"):
            getattr(self, name).update(head[name])
        self.masked += head["masked"]
        self.found.update(head["found"])

    def as_dict(self) -> dict[str, Any]:
        """The counts by rule and split, in a fixed order."""
        return {
            "records": sum(self.records.values()) + sum(self.rules.values()),
            "removed": {rule: self.rules[rule] for rule in RULES if self.rules[rule]},
            "splits": {
                name: {"records": self.records[name], "examples": self.examples[name]}
                for name in ("train", "valid", "test")
            },
            "pii": {"findings": dict(sorted(self.private.items())), "records_masked": self.masked},
        }
