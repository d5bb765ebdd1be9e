"""The table of a stage comparison, and its file under benchmarks/results/<device>/."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import write_results

MEBIBYTE = 1 << 20


def show(stage: str, rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> None:
    """One line a contender: its rate, how many times that we do, its memory, and the goal where there is one."""
    table = Table(title=f"{stage}: tokens per second, peak memory and what of it comes on top of the imports")
    table.add_column("case")
    for column in ("contender", "tokens/s", "p10..p90", "ours is", "rounds", "peak MiB", "above import", "goal"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        for place, (name, figures) in enumerate(row["contenders"].items()):
            table.add_row(
                row["case"] if place == 0 else "", name, *_rate(figures["tokens_per_second"]),
                *_against(row["rivals"].get(name)), _mebibytes(figures["peak_bytes"]),
                _mebibytes(figures["peak_above_import_bytes"]), _goal(row["rivals"].get(name)),
            )
        table.add_section()
    (console or Console(width=132)).print(table)


def record(stage: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Path:
    """Write the rows with the device, the versions of the rivals and the settings of the run; return the path."""
    torch.set_num_threads(settings["threads"])  # as in the contenders, so that the description of the device says so
    rivals = {
        name: importlib.metadata.version(name) for name in ("transformers", "trl") if importlib.util.find_spec(name)
    }
    return write_results(f"stage_{stage}", "cpu", {"settings": dict(settings), "versions": rivals, "rows": list(rows)})


def _rate(figures: Mapping[str, float]) -> tuple[str, str]:
    return f"{figures['median']:,.0f}", f"{figures['p10']:,.0f}..{figures['p90']:,.0f}"


def _against(figures: Mapping[str, float] | None) -> tuple[str, str]:
    if figures is None:
        return "", ""
    return f"{figures['speedup']:.2f}x", f"{figures['speedup_min']:.2f}..{figures['speedup_max']:.2f}"


def _goal(figures: Mapping[str, float] | None) -> str:
    if figures is None or "goal" not in figures:
        return ""
    fast, small = figures["speedup"] >= figures["goal"], figures["memory_share_above_import"] <= 1.0
    return f"{figures['goal']:g}x {'reached' if fast else 'missed'}, memory {'reached' if small else 'missed'}"


def _mebibytes(count: float) -> str:
    return f"{count / MEBIBYTE:,.0f}"
