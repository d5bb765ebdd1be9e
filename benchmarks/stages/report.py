"""The lines of a stage comparison, and its file under benchmarks/results/<device>/."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import write_results

MEBIBYTE = 1 << 20
LINE = "  {:<13}{:>10}{:>17}{:>8}{:>13}{:>10}{:>10}{:>9}  {}"


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print each case: a line a contender with its rate, how many times that we do, its memory, and a goal if any.

    Memory is the peak, and what of it comes on top of the imports, with our share of the latter.
    """
    for row in rows:
        print(f"\n{row['case']}")
        print(LINE.format("", "tokens/s", "p10..p90", "we do", "by round", "peak MiB", "on top", "we take", "goal"))
        for name, figures in row["contenders"].items():
            rate, versus = figures["tokens_per_second"], row["rivals"].get(name)
            print(LINE.format(
                name, f"{rate['median']:,.0f}", f"{rate['p10']:,.0f}..{rate['p90']:,.0f}", *_speed(versus),
                _mebibytes(figures["peak_bytes"]), _mebibytes(figures["peak_above_import_bytes"]), *_judged(versus),
            ))


def record(stage: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Path:
    """Write the rows with the device, the versions of the rivals and the settings of the run; return the path."""
    torch.set_num_threads(settings["threads"])  # as in the contenders, so that the description of the device says so
    rivals = {
        name: importlib.metadata.version(name) for name in ("transformers", "trl") if importlib.util.find_spec(name)
    }
    return write_results(f"stage_{stage}", "cpu", {"settings": dict(settings), "versions": rivals, "rows": list(rows)})


def _speed(versus: Mapping[str, float] | None) -> tuple[str, str]:
    if versus is None:
        return "", ""
    return f"{versus['speedup']:.2f}x", f"{versus['speedup_min']:.2f}..{versus['speedup_max']:.2f}"


def _judged(versus: Mapping[str, float] | None) -> tuple[str, str]:
    if versus is None:
        return "", ""
    share = f"{versus['memory_share_above_import']:.2f}x"
    if "goal" not in versus:
        return share, ""
    return share, f"{versus['goal']:g}x {'reached' if versus['speedup'] >= versus['goal'] else 'missed'}"


def _mebibytes(count: float) -> str:
    return f"{count / MEBIBYTE:,.0f}"
