"""Writes the tables of docs/diagnosis.md: the rules, their thresholds, and what the recorded broken runs look like.

python tools/write_diagnosis.py            rewrites the tables
python tools/write_diagnosis.py --check    exits with 1 when it does not say what the rules say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DOCUMENT = ROOT / "docs" / "diagnosis.md"
RECORDED = ROOT / "python_tests" / "diagnosis" / "recorded"

RUNS = {
    "healthy": "healthy",
    "no_kl": "kl_coef 0",
    "reward_is_length": "reward = length of the answer",
    "rate_times_100": "learning_rate times 100",
}
SHOWN = {
    "KL, nats a token": "objective/kl_per_token",
    "answer, tokens": "val/response_length",
    "EOS rate": "val/eos_rate",
    "entropy, nats a token": "policy/entropy_avg",
    "score": "objective/scores",
    "score with length": "val/score_length_correlation",
}


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def rules() -> list[str]:
    """The table of rules."""
    from instructgpt_fast.diagnosis import RULES

    lines = ["| name | stages | what is seen | likely cause | remedy |", "|---|---|---|---|---|"]
    for rule in RULES:
        name = f"`{rule.name}` ({rule.severity}): {rule.title}"
        cells = (name, ", ".join(rule.stages), rule.seen, rule.cause, rule.remedy)
        lines.append("| " + " | ".join(map(cell, cells)) + " |")
    return lines


def thresholds() -> list[str]:
    """The table of thresholds."""
    from instructgpt_fast.diagnosis import THRESHOLDS

    lines = ["| name | value | mark | what it is and why |", "|---|---|---|---|"]
    for name, threshold in THRESHOLDS.items():
        lines.append(f"| `{name}` | {threshold.value:g} | {threshold.mark} | {cell(threshold.reason)} |")
    return lines


def recorded(name: str) -> list[dict[str, Any]]:
    text = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def number(value: float) -> str:
    """Two digits, and 0 for what is rounding."""
    return f"{value:.2g}" if abs(value) > 1e-3 else "0"


def runs() -> list[str]:
    """What four recorded runs look like: one healthy, three broken on purpose."""
    from instructgpt_fast.diagnosis import diagnose

    lines = [f"| run | {' | '.join(SHOWN)} | found (first step) |", "|---|" + "---|" * (len(SHOWN) + 1)]
    for name, title in RUNS.items():
        records = recorded(name)
        first, last = records[0], records[-1]
        cells = [f"{number(first[metric])} to {number(last[metric])}" for metric in SHOWN.values()]
        found = diagnose(records, "ppo")
        named = ", ".join(f"`{finding.name}` ({finding.step})" for finding in found) or "nothing"
        lines.append(f"| {title} | {' | '.join(cells)} | {named} |")
    return lines


def document() -> str:
    """docs/diagnosis.md with its tables as they should be; the text between them is written by hand."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, make in {"findings": rules, "runs": runs, "thresholds": thresholds}.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + "\n".join(make()) + "\n\n" + end + rest.partition(end)[2]
    return text


def main() -> int:
    """Write or check the document; returns the exit status."""
    text = document()
    if "--check" in sys.argv[1:]:
        same = DOCUMENT.read_text(encoding="utf-8") == text
        if not same:
            print("docs/diagnosis.md does not say what the rules say: run python tools/write_diagnosis.py")
        return 0 if same else 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
