"""Samples: which two of a prompt are shown, and that a token's colour is its number."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from instructgpt_fast.report.markup import Markup, join
from instructgpt_fast.report.read import RunFiles, read_run_files
from instructgpt_fast.report.samples import samples_section

from . import runs
from .document import Node, parsed


def section(run: RunFiles, most: int = 8) -> Node:
    made = samples_section(run, most, "x-")
    assert isinstance(made, Markup)
    return parsed(join(made))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return read_run_files(runs.write_ppo(tmp_path_factory.mktemp("ppo")))


def test_the_first_and_the_last_answer_of_each_prompt(run: RunFiles) -> None:
    shown = section(run)
    cards = shown.all("article")
    assert [card.all("p", "prompt")[0].text for card in cards] == [s.prompt for s in run.samples[:3]]
    for card, first, last in zip(cards, run.samples[:3], run.samples[-3:], strict=True):
        before, after = card.all("p", "answer")
        # The end of the text is shown by a sign of its own.
        assert (before.text, after.text) == ("".join(first.tokens) + "∎", "".join(last.tokens) + "∎")
        told = [heading.text for heading in card.all("h4")]
        assert told[0].startswith("Before step 0 · 11 tokens · score ")
        assert told[1].startswith("After step 40 · 11 tokens")
    few = section(run, most=2)
    assert len(few.all("article")) == 2
    assert "1 further prompts are in samples.jsonl" in few.text
    assert samples_section(run, 0, "x-") is None


@pytest.mark.parametrize("letter, field", [("k", "kl"), ("a", "advantages"), ("v", "values"), ("p", "logprobs")])
def test_a_colour_is_the_number(run: RunFiles, letter: str, field: str) -> None:
    """Eleven levels, whose ends are the number below which 98 % of the sizes lie."""
    chosen = [sample for pair in zip(run.samples[:3], run.samples[-3:], strict=True) for sample in pair]
    sign = -1 if field == "logprobs" else 1
    numbers = [sign * value for sample in chosen for value in getattr(sample, field)]
    full = float(np.quantile(np.abs(numbers), 0.98))
    tokens = [token for answer in section(run).all("p", "answer") for token in answer.all("span", "t")]
    assert len(tokens) == len(numbers)
    for token, value in zip(tokens, numbers, strict=True):
        level = round(max(-1.0, min(1.0, value / full)) * 5)
        expected = {f"{letter}m{-level}" if level < 0 else f"{letter}{level}"} if level else set()
        assert {name for name in token.classes if re.fullmatch(f"{letter}m?[1-5]", name)} == expected
    names = {"k": "KL", "a": "Advantage", "v": "Value", "p": "Surprise"}
    title = str(tokens[0].attributes["title"])
    number = f"{numbers[0]:.3g}".replace("-", "\u2212")
    assert f"{names[letter]} {number}" in title


def test_numbers_of_every_token_are_in_a_table(run: RunFiles) -> None:
    rows = section(run).all("article")[0].all("details")[0].rows()
    assert rows[0] == ["token", "KL", "Advantage", "Value", "Surprise"]
    first = run.samples[0]
    assert rows[1][0] == repr(first.tokens[0])
    assert rows[1][1] == f"{first.kl[0]:.3g}".replace("-", "\u2212")  # type: ignore[index]
    assert len(rows) == 2 * (1 + len(first.tokens))


def test_the_switch_offers_what_there_is(run: RunFiles) -> None:
    """A stage without reference and value model has log-probabilities alone, shown as surprise."""
    bare = dataclasses.replace(run, samples=[
        dataclasses.replace(sample, kl=None, advantages=None, values=None, score=None) for sample in run.samples
    ])
    assert [label.text for label in section(run).all("label")] == ["KL", "Advantage", "Value", "Surprise"]
    shown = section(bare)
    assert [label.text for label in shown.all("label")] == ["Surprise"]
    (button,) = shown.all("input")
    assert "checked" in button.attributes
    assert shown.all("span", "k1") == []


def test_of_a_long_answer_the_beginning_and_the_end_are_shown(run: RunFiles) -> None:
    count = 1024
    long = dataclasses.replace(
        run.samples[0], tokens=[f" {i}" for i in range(count)], logprobs=[-1.0] * count, kl=[0.1] * count,
        advantages=[0.2] * count, values=[0.3] * count, token_ids=list(range(count)),
    )
    shown = section(dataclasses.replace(run, samples=[long, dataclasses.replace(long, step=9)]))
    tokens = shown.all("p", "answer")[0].all("span", "t")
    assert [token.text for token in tokens] == [f" {i}" for i in [*range(100), *range(984, 1024)]]
    assert "[…884 tokens…]" in shown.text
    assert "1024 tokens" in shown.text
    assert len(shown.all("table")[0].all("tr")) == 141


def test_a_run_that_stopped_before_its_second_sample(run: RunFiles, tmp_path: Path) -> None:
    shown = section(dataclasses.replace(run, samples=run.samples[:3]))
    assert "Only one sample was drawn so far" in shown.text
    none = section(dataclasses.replace(run, samples=[], options={"record_samples": 0}))
    assert "record_samples was 0" in none.text
    assert "records none" in section(RunFiles(tmp_path)).text
    finished = RunFiles(tmp_path, stage="ppo", options={"record_samples": 4}, result={})
    assert "the run finished without any" in section(finished).text
    assert "scores answers" in section(dataclasses.replace(finished, stage="reward")).text
