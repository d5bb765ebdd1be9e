"""Writes docs/options.md: every option of every stage and key of task files, from the options classes themselves.

python tools/write_options.py            rewrites the document
python tools/write_options.py --check    exits with 1 when it does not say what the classes say
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DOCUMENT = ROOT / "docs" / "options.md"


def classes() -> list[type]:
    """The options classes of the stages, in the order in which one works, and those of the kinds of task files."""
    from instructgpt_fast.data.hygiene import PrepareConfig
    from instructgpt_fast.evaluate import EvaluateConfig
    from instructgpt_fast.evaluate.kinds import KINDS
    from instructgpt_fast.label import LabelConfig
    from instructgpt_fast.quickstart import QuickstartConfig
    from instructgpt_fast.report import ReportConfig
    from instructgpt_fast.serve import ServeConfig
    from instructgpt_fast.train import PpoConfig, PretrainConfig, RewardConfig, SftConfig

    stages = [PretrainConfig, SftConfig, RewardConfig, PpoConfig]
    tasks = [kind.options for _, kind in sorted(KINDS.items())]
    return [PrepareConfig, *stages, EvaluateConfig, *tasks, ServeConfig, LabelConfig, ReportConfig, QuickstartConfig]


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "required" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"


def section(cls: type) -> list[str]:
    """One class as a heading, its sentence and a table."""
    from instructgpt_fast.config import described_options

    options = described_options(cls)
    summary = (inspect.getdoc(cls) or "").split("\n", 1)[0]
    lines = [f"## {cls.__name__}", "", summary, "", "| option | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        written, text = options[field.name]
        cells = (f"`{field.name}`", f"`{written}`", default_of(field), text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def document() -> str:
    """The whole of docs/options.md."""
    lines = [
        "# Options", "",
        "Written by `python tools/write_options.py` from the classes. On the command line `learning_rate` is",
        "`--learning-rate`; in a TOML file it is `learning_rate`. A class whose name ends in Task holds the keys of a",
        "[task file](evaluation.md) of that kind. [P] printed in the paper, [A] printed by an ancestor, [O] our own",
        "choice.", "",
    ]
    for cls in classes():
        lines += section(cls)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write or check the document; returns the exit status."""
    text = document()
    if "--check" in sys.argv[1:]:
        same = DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text
        if not same:
            print("docs/options.md does not say what the options classes say: run python tools/write_options.py")
        return 0 if same else 1
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
