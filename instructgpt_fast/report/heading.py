"""What a run was: facts at the top of its section, and its options, those that were chosen first."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from typing import Any

from instructgpt_fast.config import described_options
from instructgpt_fast.report.axes import shown
from instructgpt_fast.report.figure import plain_table
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.train import config_class

__all__ = ["facts", "options_table", "stage_title", "state"]

TITLES = {"pretrain": "Pretraining", "sft": "Supervised fine-tuning", "reward": "Reward model", "ppo": "PPO"}
_MARK = re.compile(r"\[([PAO])\b")


def stage_title(run: RunFiles) -> str:
    """The stage in words; PPO with a pretraining mix is PPO-ptx."""
    if run.stage == "ppo" and run.options.get("ptx_data", "none") != "none":
        return "PPO-ptx"
    return TITLES.get(run.stage or "", "Run of an unknown stage")


def state(run: RunFiles) -> tuple[str, str]:
    """(class, words) for whether the run came to its end."""
    if run.result is not None:
        return "good", "finished"
    if not run.records:
        return "bad", "nothing recorded"
    return "bad", f"not finished: last record at step {run.last_step:,}"


def facts(run: RunFiles) -> Markup:
    """A list of what is known about the run: dates, device, sizes, versions."""
    record = run.record
    known: list[tuple[str, str]] = [("steps", f"{run.last_step:,}"), ("records", f"{len(run.records):,}")]
    if record is not None:
        known.append(("began", _moment(record.started)))
        known.append(("ended", _moment(record.ended) if record.ended else "not known: running, or killed"))
        known += [("device", ", ".join(part for part in (
            record.device, record.dtype, f"{record.threads} threads" if record.threads else None) if part))]
        known += [(f"parameters, {name}", shown(float(count))) for name, count in record.parameters.items()]
    else:
        known += [(name, str(run.options[name])) for name in ("device", "dtype") if name in run.options]
    if run.result is not None and isinstance(run.result.get("checkpoint"), str):
        known.append(("checkpoint", run.result["checkpoint"]))
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in known if value]
    return element("dl", *pairs, class_="facts")


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def options_table(run: RunFiles) -> Markup:
    """The options in a folded table: those that differ from the default first, each with its default and its mark."""
    if not run.options:
        return element("p", "The options are not known: resolved.toml is missing or cannot be read.", class_="absent")
    defaults, marks = _defaults_and_marks(run)
    given = [name for name, value in run.options.items() if name not in defaults or value != defaults[name]]
    rows = [[name, _plain(run.options[name]), _plain(defaults.get(name, "required")), marks.get(name, "")]
            for name in given]
    rest = [[name, _plain(value), "as given", marks.get(name, "")] for name, value in run.options.items()
            if name not in given]
    heads = ["option", "value", "default", "mark"]
    return element(
        "details", element("summary", f"Options: {len(given)} chosen, {len(rest)} left at their defaults"),
        element("p", "Mark of the default: P printed in the paper, A in an ancestor of it, O our own choice.",
                class_="remark"),
        plain_table(heads, rows), element("h4", "At their defaults") if rest else None,
        plain_table(["option", "value", "", "mark"], [[n, v, "", m] for n, v, _, m in rest]) if rest else None,
        class_="options",
    )


def _defaults_and_marks(run: RunFiles) -> tuple[dict[str, Any], dict[str, str]]:
    """Option -> default as resolved.toml writes it; option -> mark of the default, or of the preset's value."""
    if run.stage is None:
        return {}, {}
    cls = config_class(run.stage)
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            value = list(field.default) if isinstance(field.default, tuple) else field.default
            defaults[field.name] = "none" if value is None else value
    marks: dict[str, str] = {}
    for name, (_, text) in described_options(cls).items():
        found = _MARK.findall(text)
        if found:
            marks[name] = "/".join(dict.fromkeys(found))
    preset = cls.presets.get(run.options.get("preset", "none"), {})
    for name, marked in preset.items():
        if run.options.get(name) == marked.value:
            marks[name] = f"{marked.mark} (preset)"
    return defaults, marks


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
