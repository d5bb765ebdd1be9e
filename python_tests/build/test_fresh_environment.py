"""`pip install .` into an empty virtual environment, everything downloaded: minutes, so only in `make slow`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from python_tests.build import ROOT


@pytest.mark.slow
def test_plain_install_into_an_empty_environment(tmp_path: Path) -> None:
    """Isolated, dependencies resolved by pip at this repository's pins; then the doctor finds nothing wrong."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    pins = (ROOT / "requirements-dev.txt").read_text()
    (tmp_path / "constraints.txt").write_text(pins)
    # Also inside the isolated build: an unpinned torch can be gigabytes.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONSTRAINT": str(tmp_path / "constraints.txt")}
    env |= {"INSTRUCTGPT_FAST_CUDA": "OFF", "PIP_BUILD_CONSTRAINT": str(tmp_path / "constraints.txt")}
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", str(ROOT)]
    result = subprocess.run(install, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    doctor = [python, "-m", "instructgpt_fast.doctor"]
    result = subprocess.run(doctor, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
