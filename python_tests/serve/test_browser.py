"""`make browser`: which Chromium is taken, when one is installed, and what is said where none can be."""

from __future__ import annotations

import importlib.util
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from python_tests.serve import browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("find_or_install_browser", ROOT / "tools/find_or_install_browser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(path: Path, says: str, status: int = 0) -> str:
    """A program that says one line whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "bin").mkdir(exist_ok=True)
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home"), **more}


class Machine:
    """Commands that succeed unless told otherwise; installing puts a Chromium on PATH."""

    def __init__(self, folder: Path, fails: str = "nothing", says: str = "Chromium 150.0 on Debian") -> None:
        self.folder, self.fails, self.says = folder, fails, says
        self.commands: list[str] = []

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        assert environment["DEBIAN_FRONTEND"] == "noninteractive"
        self.commands.append(command[-1])
        if self.fails in command:
            return 100
        if "install" in command:
            program(self.folder / "chromium", self.says)
        return 0


def test_the_named_one_alone_then_path_then_playwrights(tmp_path: Path) -> None:
    where = environment(tmp_path)
    assert browser.find(where) is None
    folder = "home/.cache/ms-playwright"
    program(tmp_path / folder / "chromium-1100/chrome-linux/chrome", "Chromium 149.0")
    newer = program(tmp_path / folder / "chromium-1200/chrome-linux64/chrome", "Chromium 150.0")
    assert browser.find(where) == newer
    program(tmp_path / "bin/chromium", "the chromium snap is not installed", 1)
    google = program(tmp_path / "bin/google-chrome", "Google Chrome 150.0")
    assert browser.find(where) == google, "a placeholder that does not start is passed over"
    own = program(tmp_path / "own", "Chromium 151.0")
    assert browser.find({**where, browser.VARIABLE: own}) == own
    assert browser.find({**where, browser.VARIABLE: str(tmp_path / "absent")}) is None, "no other in its place"


def test_what_is_there_is_not_installed(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "bin")
    found = program(tmp_path / "bin/chromium", "Chromium 150.0")
    program(tmp_path / "bin/apt-get", "")
    assert tool.main(environment(tmp_path), machine.run, is_root=True) == 0
    assert capsys.readouterr().out == found + "\n"
    assert machine.commands == []


def test_root_on_debian_installs_it(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path / "bin")
    program(tmp_path / "bin/apt-get", "")
    assert tool.main(environment(tmp_path), machine.run, is_root=True) == 0
    assert machine.commands == ["update", "chromium"]
    assert capsys.readouterr().out == f"{tmp_path / 'bin/chromium'}\n"


@pytest.mark.parametrize("fails, done", [("update", ["update"]), ("install", ["update", "chromium"])])
def test_an_installation_that_fails_is_said(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: str, done: list[str]
) -> None:
    machine = Machine(tmp_path / "bin", fails)
    program(tmp_path / "bin/apt-get", "")
    assert tool.main(environment(tmp_path), machine.run, is_root=True) == 1
    assert machine.commands == done
    told = capsys.readouterr()
    assert told.out == ""
    assert "playwright install chromium" in told.err


def test_an_installed_placeholder_is_no_browser(tool: ModuleType, tmp_path: Path) -> None:
    """As on a distribution whose package only points at a snap."""
    program(tmp_path / "bin/apt-get", "")
    assert tool.main(environment(tmp_path), Machine(tmp_path / "bin", says="get the snap").run, is_root=True) == 1


@pytest.mark.parametrize("is_root, has_apt", [(False, True), (True, False)])
def test_others_are_told_what_to_do(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_root: bool, has_apt: bool
) -> None:
    machine = Machine(tmp_path / "bin")
    if has_apt:
        program(tmp_path / "bin/apt-get", "")
    assert tool.main(environment(tmp_path), machine.run, is_root) == 1
    assert machine.commands == []
    assert "playwright install chromium" in capsys.readouterr().err


def test_a_wrong_name_is_no_reason_to_install(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "bin")
    program(tmp_path / "bin/apt-get", "")
    where = environment(tmp_path, **{browser.VARIABLE: "/nowhere/chromium"})
    assert tool.main(where, machine.run, is_root=True) == 1
    assert machine.commands == []
    assert "/nowhere/chromium, which does not start" in capsys.readouterr().err
