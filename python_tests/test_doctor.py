"""doctor(): what it says of a good installation, of a broken one, and which code it thinks runs on which GPU."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import instructgpt_fast as igf
from instructgpt_fast import doctor as doctor_module
from instructgpt_fast.doctor import Finding, build_info, doctor
from instructgpt_fast.errors import BackendError
from instructgpt_fast.ops import _library

ROOT = Path(__file__).resolve().parents[1]


def report() -> tuple[dict[str, Finding], str]:
    """The findings by part, and what was printed."""
    output = io.StringIO()
    findings = doctor(console=Console(file=output, width=200))
    return {finding.part: finding for finding in findings}, output.getvalue()


def test_a_good_installation() -> None:
    findings, text = report()
    assert not [finding for finding in findings.values() if finding.wrong]
    assert findings["CUDA in the build"].why == build_info()["cuda"]["why"]
    assert int(findings["CPU operators"].found) == len(_library.operators_on("cpu"))
    for finding in findings.values():
        assert finding.part in text
    assert igf.doctor is doctor_module


def test_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "instructgpt_fast.doctor"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "native build" in result.stdout


def test_no_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor_module, "BUILD_INFO", tmp_path / "missing.json")
    findings, text = report()
    assert findings["native build"].wrong
    assert "pip install ." in text


def test_libraries_that_do_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> object:
        raise BackendError("libigf_cpu.so does not exist; build it")

    monkeypatch.setattr(doctor_module.importlib, "import_module", refuse)
    monkeypatch.setattr(doctor_module, "_host", list)
    findings, _ = report()
    assert findings["CPU operators"] == Finding("CPU operators", "none", "libigf_cpu.so does not exist; build it", True)


def test_another_version_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text(json.dumps({**build_info(), "version": "0.0.1"}))
    monkeypatch.setattr(doctor_module, "BUILD_INFO", tmp_path / "info.json")
    assert report()[0]["versions"].found.startswith("built for 0.0.1")


@pytest.mark.parametrize(
    ("capability", "archs", "serving"),
    [
        (90, ["80+PTX", "90a"], "machine code of sm_90a"),
        (86, ["80+PTX", "90a"], "machine code of sm_80"),
        (103, ["100", "80+PTX"], "machine code of sm_100"),
        (110, ["100a", "80+PTX"], "PTX, compiled at first use, of sm_80"),
        (103, ["100a"], ""),  # code with a letter runs on that one device
        (75, ["80+PTX"], ""),
    ],
)
def test_which_code_serves_a_device(capability: int, archs: list[str], serving: str) -> None:
    assert doctor_module._serving(capability, archs) == serving
