"""The options of sampling: what is taken, in which form it is kept, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.generate import Completion, SamplingConfig


def test_one_stop_is_a_list_of_one() -> None:
    kept = SamplingConfig(stop="\n", stop_ids=7, temperature=0)  # type: ignore[arg-type]
    assert kept == SamplingConfig(stop=["\n"], stop_ids=[7], temperature=0.0)  # type: ignore[arg-type]
    assert (kept.stop, kept.stop_ids, type(kept.temperature)) == (("\n",), (7,), float)
    assert hash(kept) == hash(SamplingConfig(stop=("\n",), stop_ids=(7,), temperature=0.0))


@pytest.mark.parametrize(("option", "value", "message"), [
    ("max_new_tokens", 0, "at least 1, got 0"),
    ("max_new_tokens", 2.5, "must be int, got 2.5"),
    ("temperature", -0.1, "must not be negative, got -0.1"),
    ("temperature", 1e-38, r"must be 0 or in \[1e-10, 1e10\], got 1e-38"),
    ("temperature", 1e300, r"must be 0 or in \[1e-10, 1e10\]"),
    ("temperature", "hot", "must be a finite number, got 'hot'"),
    ("temperature", float("nan"), "must be a finite number, got nan"),
    ("top_k", -1, "must not be negative"),
    ("top_k", 10**40, r"must be less than 2\^31"),
    ("top_k", True, "must be int, got True"),
    ("top_p", 0.0, r"must be in \(0, 1\]"),
    ("top_p", 1.1, r"must be in \(0, 1\]"),
    ("min_p", -0.1, r"must be in \[0, 1\]"),
    ("repetition_penalty", 0.0, "must be positive"),
    ("repetition_penalty", 1e-40, r"must be in \[1e-10, 1e10\]"),
    ("repetition_penalty", 1e40, r"must be in \[1e-10, 1e10\]"),
    ("stop", "", r"at most 16 texts, none empty, got \(''"),
    ("stop", ["a"] * 17, "at most 16 texts"),
    ("stop", [3], r"must be a list of str, got \[3\]"),
    ("stop_ids", [-1], r"must not be negative, got \(-1,\)"),
    ("stop_ids", "x", "must be a list of int"),
    ("num_beams", 0, "at least 1, got 0"),
    ("length_penalty", 400, r"must be in \[-50, 50\], got 400"),
    ("length_penalty", float("inf"), "must be a finite number, got inf"),
])
def test_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^sampling: {option} .*{message}"):
        SamplingConfig(**{option: value})


@pytest.mark.parametrize(("option", "value"), [
    ("temperature", 0.7), ("top_k", 3), ("top_p", 0.5), ("min_p", 0.1), ("repetition_penalty", 1.2), ("seed", 1),
])
def test_options_of_a_draw_are_refused_beside_beams(option: str, value: float) -> None:
    options: dict[str, Any] = {"temperature": 0.0, option: value}
    SamplingConfig(**options)
    with pytest.raises(ConfigError, match=rf"beam search \(num_beams=4\) draws nothing, so {option} must be"):
        SamplingConfig(num_beams=4, **options)


def test_finished_means_ended_by_the_model() -> None:
    assert [Completion([1], [0.0], reason).finished for reason in ("eos", "stop", "length")] == [True, False, False]
