"""Options classes: unknown names, types, presets, TOML there and back."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructgpt_fast.config import (
    Options,
    from_options,
    options_class,
    ours,
    printed,
    read_toml,
    to_dict,
    to_toml,
)
from instructgpt_fast.errors import ConfigError


@options_class({"paper": {"learning_rate": printed(0.5), "batch": ours(7)}})
class Sample(Options):
    stage: ClassVar[str] = "sample"

    output_dir: str
    """Where."""
    preset: str | None = None
    learning_rate: float = 1e-3
    batch: int = 4
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = 3
    names: tuple[str, ...] = ()
    loud: bool = False

    def check(self) -> None:
        super().check()
        self.require("batch must be at least 1", self.batch >= 1, batch=self.batch)


@options_class({"paper": {"batch": printed(9), "extra": ours(2)}})
class Grown(Sample):
    extra: int = 1


def test_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'learning_rat', did you mean 'learning_rate'\?"):
        Sample(output_dir="x", learning_rat=1.0)  # type: ignore[call-arg]


def test_missing_required_option_is_named() -> None:
    with pytest.raises(ConfigError, match="output_dir must be given"):
        Sample()  # type: ignore[call-arg]


@pytest.mark.parametrize(("name", "value", "words"), [
    ("learning_rate", "fast", "must be a finite number, got 'fast'"),
    ("learning_rate", float("nan"), "must be a finite number, got nan"),
    ("learning_rate", float("inf"), "must be a finite number, got inf"),
    ("batch", 2.5, "must be int, got 2.5"),
    ("batch", True, "must be int, got True"),
    ("loud", 1, "must be bool, got 1"),
    ("mode", "medium", "must be one of 'fast', 'slow', got 'medium'"),
    ("limit", "many", "must be int or none, got 'many'"),
    ("names", "abc", "must be a list of str, got 'abc'"),
    ("names", [1], r"must be a list of str, got \[1\]"),
])
def test_wrong_types_are_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_options(Sample, {"output_dir": "x", name: value})


def test_conversions_that_lose_nothing() -> None:
    sample = from_options(Sample, {"output_dir": Path("a/b"), "learning_rate": 1, "limit": "none", "names": ["p"]})
    assert (sample.output_dir, sample.learning_rate, sample.limit, sample.names) == ("a/b", 1.0, None, ("p",))
    assert type(sample.learning_rate) is float


def test_own_check_runs() -> None:
    with pytest.raises(ConfigError, match="Sample: batch must be at least 1, got batch=0"):
        Sample(output_dir="x", batch=0)


def test_preset_fills_what_is_not_given() -> None:
    sample = Sample(output_dir="x", preset="paper", learning_rate=1e-3)
    assert sample.batch == 7
    assert sample.learning_rate == 1e-3, "a given value wins over the preset, even when it equals the default"
    assert Sample(output_dir="x", preset="paper").learning_rate == 0.5


def test_a_subclass_has_its_own_presets() -> None:
    assert Grown(output_dir="x", preset="paper").batch == 9
    assert Grown(output_dir="x", preset="paper").extra == 2
    assert Sample(output_dir="x", preset="paper").batch == 7


def test_unknown_preset_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"preset must be one of: paper; got 'papr', did you mean 'paper'\?"):
        Sample(output_dir="x", preset="papr")


options = st.fixed_dictionaries({
    "output_dir": st.text(st.characters(blacklist_categories=("Cs",))).filter(lambda text: text != "none"),
    "learning_rate": st.floats(allow_nan=False, allow_infinity=False),
    "batch": st.integers(1, 2**62),
    "mode": st.sampled_from(["fast", "slow"]),
    "limit": st.none() | st.integers(-5, 5),
    "names": st.lists(st.text(st.characters(blacklist_categories=("Cs",)))),
    "loud": st.booleans(),
})


@settings(deadline=None)
@given(options)
def test_toml_there_and_back(tmp_path_factory: pytest.TempPathFactory, given_options: dict[str, object]) -> None:
    sample = from_options(Sample, given_options)
    path = tmp_path_factory.mktemp("toml") / "resolved.toml"
    path.write_text(to_toml(sample), encoding="utf-8", newline="")
    assert from_options(Sample, read_toml(path)) == sample
    assert from_options(Sample, to_dict(sample)) == sample


def test_toml_as_windows_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "notepad.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'x'\r\ntext = 'y'\r\n")
    assert read_toml(path) == {"name": "x", "text": "y"}


def test_unreadable_and_malformed_toml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file"):
        read_toml(tmp_path / "absent.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("learning_rate = = 3\n")
    with pytest.raises(ConfigError, match=r"bad\.toml must be TOML, got a syntax error"):
        read_toml(bad)
    bad.write_bytes(b"name = '\xff'\n")
    with pytest.raises(ConfigError, match=r"bad\.toml must be TOML"):
        read_toml(bad)
