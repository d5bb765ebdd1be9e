"""docs/measured.md says of a GPU what its files say, and says so where there are none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_measured", ROOT / "tools" / "write_measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path / "cpu").mkdir()
    return module


def test_no_gpu_was_measured(writer: ModuleType) -> None:
    assert writer.gpus()[2] == "Not measured: nobody has run anything on a GPU."


def test_a_gpu_has_a_section_with_its_ceiling_and_what_was_left_out(writer: ModuleType, tmp_path: Path) -> None:
    """The figures here are made up, in a folder of the test."""
    folder = tmp_path / "some-gpu"
    folder.mkdir()
    row = {"case": "small", "contenders": {"ours": {"median_ms": 0.00512, "tflop_s": 612.3}}, "speedup": {"torch": 2.0},
           "share_of_ceiling": 0.5}
    found = {"rows": [row], "left_out": ["large"], "gpu": "Some GPU", "driver": "1.2", "cuda": "13.0", "torch": "2.13",
             "processor": "Some CPU", "threads": 2, "date": "2000-01-01", "commit": "abc"}
    (folder / "some_op.json").write_text(json.dumps(found), encoding="utf-8")
    lines = writer.gpus()
    assert "## Operators on some-gpu" in lines and "### some_op" in lines
    assert "| small | 0.0051 | 612 | 50% | 2.00x torch |" in lines
    assert "| large | not measured |  |  |  |" in lines
    assert "Some GPU, driver 1.2, CUDA 13.0, torch 2.13, 2000-01-01, commit abc." in lines
