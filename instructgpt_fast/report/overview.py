"""The table above several runs: each with what it ended with."""

from __future__ import annotations

from collections.abc import Sequence

from instructgpt_fast.report.axes import shown
from instructgpt_fast.report.heading import stage_title, state
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.report.series import Series, series_of
from instructgpt_fast.report.throughput import rate_of, share_of_ceiling
from instructgpt_fast.report.verdict import findings_of

__all__ = ["overview"]

# Column -> metrics, the first that a run has is shown, and the digits.
COLUMNS = (
    ("loss", ("eval_loss", "loss"), 3), ("accuracy", ("eval_accuracy", "accuracy"), 3),
    ("score", ("objective/scores",), 3), ("KL", ("objective/kl",), 3), ("EOS", ("val/eos_rate",), 3),
    ("tokens", ("val/response_length",), 3),
)


def overview(runs: Sequence[RunFiles], idents: Sequence[str]) -> Markup:
    """One row a run; the name leads to its section."""
    columns = [column for column in COLUMNS if any(_last(run, column[1]) for run in runs)]
    heads = ["run", "stage", "state", "steps", *(name for name, _, _ in columns), "tokens/s", "of ceiling", "findings"]
    rows = [_row(run, ident, columns) for run, ident in zip(runs, idents, strict=True)]
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    table = element("table", element("thead", head), element("tbody", *rows))
    last = element(
        "p", "Last recorded numbers. Loss and accuracy are of held-out data where marked *, else of training.",
        class_="remark",
    )
    box = element("div", table, class_="scroll", tabindex="0", role="region", aria_label="All runs")
    return element("section", element("h2", "All runs"), box, last, class_="overview")


def _row(run: RunFiles, ident: str, columns: Sequence[tuple[str, tuple[str, ...], int]]) -> Markup:
    mark, words = state(run)
    share, _ = share_of_ceiling(run)
    cells: list[object] = [stage_title(run), element("span", words.split(":")[0], class_=mark), f"{run.last_step:,}"]
    for _, names, digits in columns:
        last = _last(run, names)
        cells.append("" if last is None else shown(last[1], digits) + ("*" if last[0].startswith("eval_") else ""))
    rate: Series = rate_of(run).finite
    cells.append(shown(float(rate.values[-1])) if len(rate) else "")
    cells.append("" if share is None else f"{share:.0%}")
    found = findings_of(run)
    cells.append("not diagnosed" if found is None else ", ".join(finding.name for finding in found) or "none")
    name = element("th", element("a", run.name, href=f"#{ident}"), scope="row")
    return element("tr", name, *(element("td", cell) for cell in cells))


def _last(run: RunFiles, names: Sequence[str]) -> tuple[str, float] | None:
    for name in names:
        series = series_of(run.records, name)
        if len(series):
            return name, float(series.values[-1])
    return None
