"""The whole document: one file that loads nothing, runs nothing and sends nothing, and is told so by its own policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from instructgpt_fast._version import VERSION
from instructgpt_fast.report.heading import facts, options_table, stage_title, state
from instructgpt_fast.report.markup import Markup, element, join
from instructgpt_fast.report.overview import overview
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.report.samples import samples_section
from instructgpt_fast.report.stages import figures_of
from instructgpt_fast.report.verdict import verdict

__all__ = ["document"]

ASSETS = Path(__file__).resolve().parent / "assets"


def document(runs: Sequence[RunFiles], title: str, *, samples: int) -> str:
    """The report on `runs` as HTML text; `samples` prompts of each are shown."""
    idents = [f"run{place}" for place in range(1, len(runs) + 1)]
    parts: list[Markup] = []
    if len(runs) > 1:
        parts.append(overview(runs, idents))
    parts += [_section(run, ident, samples, alone=len(runs) == 1) for run, ident in zip(runs, idents, strict=True)]
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    filled = {
        "{policy}": policy, "/*{style}*/": style, "<!--{title}-->": element("title", f"Report: {title}"),
        "<!--{name}-->": element("h1", title),
        "<!--{made}-->": element("p", f"Written {made} by instructgpt_fast {VERSION}.", class_="made"),
        "<!--{main}-->": join(*parts),
    }
    # One pass over the template's own places: what a run wrote is never searched for further ones.
    text = (ASSETS / "report.html").read_text(encoding="utf-8")
    pieces: list[str] = []
    while text:
        place, name = min(((text.find(name), name) for name in filled if name in text), default=(len(text), ""))
        pieces += [text[:place], filled.get(name, "")]
        text = text[place + len(name):]
    return "".join(pieces)


def _section(run: RunFiles, ident: str, samples: int, *, alone: bool) -> Markup:
    mark, words = state(run)
    name = None if alone else element("small", run.name)
    head = element(
        "header", element("h2", stage_title(run), " ", name, id=f"{ident}-title"),
        element("p", words, class_=f"state {mark}"), facts(run),
    )
    notes = [element("li", note) for note in run.notes]
    parts: list[Markup | None] = [
        head, element("ul", *notes, class_="notes") if notes else None,
        _titled("Diagnosis", verdict(run)),
    ]
    groups = figures_of(run)
    if groups:
        parts += [_titled(heading, element("div", *figures, class_="figures")) for heading, figures in groups]
    else:
        parts.append(element("p", "metrics.jsonl holds no record: the run stopped before its first.", class_="absent"))
    shown = samples_section(run, samples, f"{ident}-")
    if shown is not None:
        parts.append(_titled("Samples", shown))
    parts.append(_titled("Options", options_table(run)))
    return element("section", *parts, id=ident, class_="run", aria_labelledby=f"{ident}-title")


def _titled(heading: str, content: Markup) -> Markup:
    return element("section", element("h3", heading), content)
