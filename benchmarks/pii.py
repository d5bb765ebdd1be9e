"""Precision and recall of the PII filter on the labelled file: `python -m benchmarks.pii` records them.

python -m benchmarks.pii                    writes benchmarks/results/cpu/pii.json, prints the table of docs/pii.md
python -m benchmarks.pii --misses tuned     prints what is wrong in a half of the file, and writes nothing
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt_fast.data.hygiene.pii import KINDS, Finding, find_pii

ROOT = Path(__file__).resolve().parents[1]
LABELLED = ROOT / "python_tests" / "data" / "hygiene" / "pii_labelled.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "cpu" / "pii.json"
HALVES = ("tuned", "held_out")
Z = 1.959964  # two-sided 95 %


class Line(NamedTuple):
    """A labelled line: its text, the private data in it, the regions whose national numbers count, its half."""

    text: str
    spans: tuple[Finding, ...]
    regions: tuple[str, ...]
    half: str


def labelled(half: str) -> list[Line]:
    """The lines of a half: the rules were chosen on `tuned`, nothing was ever changed for `held_out`."""
    rows = map(json.loads, LABELLED.read_text(encoding="utf-8").splitlines())
    lines = [Line(row["text"], tuple(Finding(*span) for span in row["spans"]), tuple(row["regions"]), row["half"])
             for row in rows]
    return [line for line in lines if line.half == half]


def wilson(hits: int, n: int) -> list[float] | None:
    """The 95 % interval of a share (Wilson 1927), or None of nothing."""
    if n == 0:
        return None
    share, z = hits / n, Z
    middle, width = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + side * width) / (1 + z * z / n) for side in (-1, 1))
    return [round(max(0.0, low), 4), round(min(1.0, high), 4)]


def measure(lines: Iterable[Line]) -> dict[str, dict[str, Any]]:
    """Counts and shares by kind, and "all".

    right: findings whose kind and both ends are the label's; precision = right / found, recall = right / labelled.
    hidden: labelled spans of which findings of any kind cover every character: what masking would hide.
    """
    counts = {kind: dict.fromkeys(("labelled", "found", "right", "hidden"), 0) for kind in (*KINDS, "all")}
    for line in lines:
        found = find_pii(line.text, line.regions)
        covered = {place for _, start, end in found for place in range(start, end)}
        for name, several in (
            ("labelled", line.spans), ("found", found), ("right", set(found) & set(line.spans)),
            ("hidden", [span for span in line.spans if covered.issuperset(range(span.start, span.end))]),
        ):
            for finding in several:
                counts[finding.kind][name] += 1
                counts["all"][name] += 1
    return {kind: {**count, **shares(**count)} for kind, count in counts.items()}


def shares(labelled: int, found: int, right: int, hidden: int) -> dict[str, Any]:
    """Precision, recall and share hidden with their intervals; None where nothing was found or labelled."""
    pairs = {"precision": (right, found), "recall": (right, labelled), "share_hidden": (hidden, labelled)}
    return {
        name: None if n == 0 else {"value": round(hits / n, 4), "interval": wilson(hits, n)}
        for name, (hits, n) in pairs.items()
    }


def results() -> dict[str, Any]:
    """What is recorded: both halves, and how many of their lines hold nothing private."""
    halves = {}
    for half in HALVES:
        lines = labelled(half)
        clean = [line for line in lines if not line.spans]
        wrong = sum(bool(find_pii(line.text, line.regions)) for line in clean)
        halves[half] = {"lines": len(lines), "clean_lines": len(clean), "clean_lines_with_a_finding": wrong,
                        "kinds": measure(lines)}
    return halves


def table(found: dict[str, Any]) -> str:
    """The figures as docs/pii.md shows them."""
    lines = ["| half | kind | labelled | precision | recall | wholly masked |", "|---|---|---|---|---|---|"]
    for half, figures in found.items():
        for kind, row in figures["kinds"].items():
            said = " | ".join(percent(row[name]) for name in ("precision", "recall", "share_hidden"))
            lines.append(f"| {half.replace('_', ' ')} | {kind} | {row['labelled']} | {said} |")
    for half, figures in found.items():
        lines.append(f"\n{half.replace('_', ' ')}: a finding in {figures['clean_lines_with_a_finding']} of "
                     f"{figures['clean_lines']} lines that hold nothing private.")
    return "\n".join(lines)


def percent(share: dict[str, Any] | None) -> str:
    """A share with its interval, in percent."""
    if share is None:
        return "none"
    return f"{share['value']:.1%} ({share['interval'][0]:.0%}..{share['interval'][1]:.0%})"


def misses(half: str) -> list[str]:
    """A line of text for each line of the file whose findings are not its labels."""
    said = []
    for line in labelled(half):
        found = set(find_pii(line.text, line.regions))
        for word, several in (("missed", set(line.spans) - found), ("wrong", found - set(line.spans))):
            said += [f"{word} {kind}: {line.text[a:b]!r} in {line.text!r}" for kind, a, b in sorted(several)]
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--misses", choices=HALVES, help="print what is wrong in this half")
    half = parser.parse_args().misses
    if half:
        print("\n".join(misses(half)))
        return
    found = results()
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
