"""The build backend asks pip only for what the target environment lacks."""

from __future__ import annotations

import importlib.metadata

import pytest

import backend
import discover


@pytest.fixture(autouse=True)
def no_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSTRUCTGPT_FAST_TORCH_INCLUDE", "INSTRUCTGPT_FAST_BUILD_TORCH"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_missing_here() -> None:
    """Which is what lets `pip install .` run without an index."""
    assert backend.get_requires_for_build_wheel() == []
    assert backend.get_requires_for_build_editable() == []
    assert backend.get_requires_for_build_sdist() == []


def test_everything_is_asked_for_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(discover, "find_tool", lambda name: None)
    wanted = backend.get_requires_for_build_wheel()
    assert wanted == ["setuptools>=70.1", "pybind11>=2.13", "cmake>=3.25", "ninja", "torch>=2.11"]
    assert backend.get_requires_for_build_sdist() == ["setuptools>=70.1"]
    monkeypatch.setenv("INSTRUCTGPT_FAST_BUILD_TORCH", "torch==2.13.0")
    assert backend.get_requires_for_build_wheel()[-1] == "torch==2.13.0"
    monkeypatch.setenv("INSTRUCTGPT_FAST_TORCH_INCLUDE", "/headers")
    assert "ninja" in backend.get_requires_for_build_wheel()[-1]


@pytest.mark.parametrize(
    ("version", "enough"),
    [("2.11.0", True), ("2.13.0+cpu", True), ("3.0", True), ("2.9.1", False), ("2.10.0a0", False)],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, version: str, enough: bool) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert backend.has("torch", (2, 11)) is enough


def test_an_old_cmake_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "cmake_version", lambda cmake: (3, 20, 1))
    assert backend.missing() == ["cmake>=3.25"]
