"""Answers before and after training side by side, each token coloured by its KL, advantage, value or surprise.

The switch between the three needs no script: radio buttons and rules of the style. Colours are eleven classes, from
far below zero to far above; below zero is also dotted underneath, for print and for eyes that see the two hues alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructgpt_fast.report.axes import shown
from instructgpt_fast.report.figure import plain_table
from instructgpt_fast.report.markup import Markup, element
from instructgpt_fast.report.read import RunFiles
from instructgpt_fast.train.records import Sample

__all__ = ["samples_section"]

SIDE = 5  # classes on each side of zero
BEGINNING, END = 100, 40  # tokens shown of an answer that is longer than both together
FULL = 0.98  # share of the numbers that the scale holds; beyond, the darkest colour stands


@dataclass(frozen=True)
class Quantity:
    """A number of each token: its class letter, its words, and the numbers of a sample.

    sign: what the recorded numbers are multiplied by; -1 makes a surprise of a log-probability, which is never below 0.
    """

    letter: str
    name: str
    field: str
    about: str
    sign: int = 1

    def of(self, sample: Sample) -> list[float] | None:
        """The numbers of `sample`, None where the stage has none."""
        found: list[float] | None = getattr(sample, self.field)
        return None if found is None else [self.sign * value for value in found]


QUANTITIES = (
    Quantity("k", "KL", "kl", "log π − log π of the reference, in nats: above 0 is likelier than before training"),
    Quantity("a", "Advantage", "advantages", "how much better than the value model expected, before whitening"),
    Quantity("v", "Value", "values", "the value model’s forecast of the reward to come, before the token"),
    Quantity("p", "Surprise", "logprobs", "−log π of the token, in nats: 0 is certain", sign=-1),
)


def samples_section(run: RunFiles, most: int, prefix: str) -> Markup | None:
    """The first `most` prompts with their first and last answers; None when samples are not wanted.

    prefix: makes the names of the switches unique in the page.
    """
    if not most:
        return None
    pairs = _first_and_last(run.samples)
    if not pairs:
        return element("p", _why_none(run), class_="absent")
    chosen = pairs[:most]
    shown_samples = [sample for pair in chosen for sample in pair]
    scales = {q.letter: _scale(q, shown_samples) for q in QUANTITIES}
    there = [q for q in QUANTITIES if scales[q.letter] is not None]
    known = {letter: scale for letter, scale in scales.items() if scale is not None}
    cards = [_pair(first, last, known, f"{prefix}{i}") for i, (first, last) in enumerate(chosen)]
    left_out = len(pairs) - len(chosen)
    return element(
        "div", *_switch(there, known, prefix),
        element("p", f"{left_out} further prompts are in samples.jsonl.", class_="remark") if left_out else None,
        *cards, class_="samples",
    )


def _why_none(run: RunFiles) -> str:
    if run.stage == "reward":
        return "No samples: a reward model scores answers and writes none."
    if run.options.get("record_samples") in (0, "none"):
        return "No samples: record_samples was 0."
    if run.result is not None and "record_samples" in run.options:
        return "No samples: the run finished without any, or samples.jsonl was deleted."
    if "record_samples" in run.options:
        return "No samples yet: samples.jsonl has none, the run stopped before the first."
    return "No samples: this stage, or the version that ran it, records none (samples.jsonl)."


def _first_and_last(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """The first and the last sample of each prompt and seed, in the order in which they first came."""
    found: dict[tuple[str, int], tuple[Sample, Sample]] = {}
    for sample in samples:
        key = (sample.prompt, sample.seed)
        found[key] = (found[key][0] if key in found else sample, sample)
    return list(found.values())


def _scale(quantity: Quantity, samples: Sequence[Sample]) -> float | None:
    """The size at which the colour is full; None where no sample has the quantity."""
    parts = [numbers for sample in samples if (numbers := quantity.of(sample)) is not None]
    if not parts:
        return None
    sizes = np.abs(np.array([value for part in parts for value in part], dtype=np.float64))
    sizes = sizes[np.isfinite(sizes)]
    return float(np.quantile(sizes, FULL)) or 1.0 if len(sizes) else 1.0


def _level(value: float, full: float) -> int:
    """-SIDE .. SIDE."""
    if not math.isfinite(value):
        return 0
    return round(max(-1.0, min(1.0, value / full)) * SIDE)


def _switch(there: Sequence[Quantity], scales: dict[str, float], prefix: str) -> list[Markup]:
    parts: list[Markup] = []
    for place, quantity in enumerate(there):
        ident = f"{prefix}{quantity.letter}"
        parts.append(element(
            "input", type="radio", name=f"{prefix}colour", id=ident, class_=f"by-{quantity.letter}", checked=place == 0
        ))
        parts.append(element("label", quantity.name, for_=ident))
    legends = [_legend(quantity, scales[quantity.letter]) for quantity in there]
    return [*parts, *legends]


def _legend(quantity: Quantity, full: float) -> Markup:
    steps = [
        element("span", "", class_=f"t {quantity.letter}{_name(level)}", aria_hidden="true")
        for level in range(-SIDE if quantity.sign > 0 else 0, SIDE + 1)
    ]
    return element(
        "p", f"{shown(-full) if quantity.sign > 0 else 0} ", element("span", *steps, class_="ramp"), f" {shown(full)}",
        element("span", quantity.about, class_="about"), class_=f"legend-{quantity.letter}",
    )


def _name(level: int) -> str:
    return f"m{-level}" if level < 0 else str(level)


def _pair(first: Sample, last: Sample, scales: dict[str, float], ident: str) -> Markup:
    sides = [_answer("Before", first, scales)]
    if last.step != first.step:
        sides.append(_answer("After", last, scales))
    else:
        sides.append(element("div", element("p", "Only one sample was drawn so far.", class_="remark")))
    tables = [
        element("div", element("h5", f"step {sample.step}"), _numbers(sample), class_="side")
        for sample in ((first, last) if last.step != first.step else (first,))
    ]
    return element(
        "article", element("p", first.prompt, class_="prompt"), element("div", *sides, class_="sides"),
        element("details", element("summary", "Numbers"), element("div", *tables, class_="sides")),
        id=f"sample-{ident}",
    )


def _answer(title: str, sample: Sample, scales: dict[str, float]) -> Markup:
    facts = [f"step {sample.step}", f"{len(sample.tokens)} tokens"]
    if sample.score is not None:
        facts.append(f"score {shown(sample.score)}")
    if sample.kl is not None:
        facts.append(f"KL {shown(round(sum(sample.kl), 3))} nats")
    if not sample.finished:
        facts.append("cut off")
    begins, ends = _shown_tokens(sample)
    tokens = [_token(sample, place, scales) for place in begins]
    if ends:
        tokens.append(element("span", f" […{ends[0] - len(begins):,} tokens…] ", class_="gap"))
        tokens += [_token(sample, place, scales) for place in ends]
    return element(
        "div", element("h4", title, " ", element("small", " · ".join(facts))), element("p", *tokens, class_="answer"),
        class_="side",
    )


def _shown_tokens(sample: Sample) -> tuple[range, range]:
    """Places of the tokens that are shown: the beginning and the end of a long answer, all of a short one."""
    count = len(sample.tokens)
    if count <= BEGINNING + END:
        return range(count), range(0)
    return range(BEGINNING), range(count - END, count)


def _token(sample: Sample, place: int, scales: dict[str, float]) -> Markup:
    text = sample.tokens[place]
    told = [repr(text) if text else "no text"]
    classes = ["t"]
    for quantity in QUANTITIES:
        numbers = quantity.of(sample)
        if numbers is None:
            continue
        value = float(numbers[place])
        told.append(f"{quantity.name} {shown(value)}")
        level = _level(value, scales[quantity.letter])
        if level:
            classes.append(f"{quantity.letter}{_name(level)}")
    end = not text and sample.finished and place == len(sample.tokens) - 1
    body: object = element("span", "∎", class_="end") if end else text
    return element("span", body, class_=" ".join(classes), title=" · ".join(told), tabindex="-1")


def _numbers(sample: Sample) -> Markup:
    there = [quantity for quantity in QUANTITIES if quantity.of(sample) is not None]
    rows = [
        [repr(sample.tokens[place]), *(shown(float((quantity.of(sample) or [])[place])) for quantity in there)]
        for part in _shown_tokens(sample) for place in part
    ]
    return plain_table(["token", *(quantity.name for quantity in there)], rows)
