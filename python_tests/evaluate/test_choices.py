"""Multiple choice and bias against sums over whole logits, through task files, on checkpoints of both formats."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import load_model, save_checkpoint
from instructgpt_fast.errors import CheckpointError, ConfigError, DataError
from instructgpt_fast.evaluate.bias import entropy_bits, shares_of
from instructgpt_fast.evaluate.choices import encode_choice
from instructgpt_fast.evaluate.likelihood import Likelihood
from instructgpt_fast.evaluate.multiple_choice import credit
from instructgpt_fast.model import ScalarModel

from ..checkpoint.foreign import shaken
from ..train.material import Material, write_jsonl

ROWS = [
    {"q": "The cat saw", "choices": ["the dog", "the old tree and ran home", "a pig"], "answer": 0},
    {"q": "The owl ran", "choices": ["home.", "near the cow", "x"], "answer": "near the cow"},
    {"q": "The fox", "choices": ["saw", "ran"], "answer": "b"},
    {"q": "Near the tree", "choices": ["home", "the hen", "the pig saw the fox"], "answer": 2},
]
PAIRS = [
    {"pair": ["The cat saw her.", "The cat saw him."]}, {"pair": ["The cow ran home.", "The old cow saw the tree."]},
    {"pair": ["the pig", "the fox", "the hen"]},
]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    made = Material(tmp_path_factory.mktemp("material"))
    model = shaken(made.gpt(), 0.3)
    for form in ("raw", "dialogue"):
        save_checkpoint(made.folder / form, model=model, tokenizer=made.tokenizer, prompt_format=form, stage="sft")
    return made


def task(folder: Path, kind: str, rows: list[dict[str, Any]], **keys: object) -> str:
    write_jsonl(folder / "items.jsonl", rows)
    lines = [f'kind = "{kind}"', 'data = "items.jsonl"', *(f"{key} = {json.dumps(v)}" for key, v in keys.items())]
    path = folder / f"my_{kind}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@torch.no_grad()
def direct(model: Any, before: list[int], after: list[int]) -> float:
    hidden = model(torch.tensor([before + after]))[0]
    logprobs = model.logits(hidden).double().log_softmax(-1)
    places = range(len(before) - 1, len(before) + len(after) - 1)
    return sum(float(logprobs[place, token]) for place, token in zip(places, after, strict=True))


def tokens_of(material: Material, form: str, prompt: str, choice: str) -> tuple[list[int], list[int]]:
    encode, roles = material.tokenizer.encode, material.tokenizer.role_ids
    if form == "raw":
        return encode(prompt) or [material.tokenizer.eos_id], encode(f" {choice}" if prompt else choice)
    return [roles["user"], *encode(prompt), roles["assistant"]], encode(choice)


@pytest.mark.parametrize("form", ["raw", "dialogue"])
def test_accuracy_by_each_way_to_compare(material: Material, form: str, tmp_path: Path) -> None:
    path = task(tmp_path, "multiple_choice", ROWS, prompt="{q}", scores=["average", "sum", "unconditional"],
                answer_context="The animal")
    records = tmp_path / "records.jsonl"
    result = igf.evaluate(str(material.folder / form), tasks=[path], records=str(records), batch_size=1)
    model = load_model(material.folder / form).model
    right = [0, 1, 1, 2]
    hits = {"accuracy": 0, "accuracy_sum": 0, "accuracy_unconditional": 0}
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for row, truth, line in zip(ROWS, right, lines, strict=True):
        parted = [tokens_of(material, form, row["q"], choice) for choice in row["choices"]]
        logprobs = [direct(model, *pair) for pair in parted]
        base = [direct(model, *tokens_of(material, form, "The animal", choice)) for choice in row["choices"]]
        assert line["logprobs"] == pytest.approx(logprobs, abs=1e-4)
        assert line["tokens"] == [len(after) for _, after in parted] and line["answer"] == truth
        ways = {
            "accuracy": [value / len(after) for value, (_, after) in zip(logprobs, parted, strict=True)],
            "accuracy_sum": logprobs,
            "accuracy_unconditional": [a - b for a, b in zip(logprobs, base, strict=True)],
        }
        for metric, scores in ways.items():
            hits[metric] += max(range(len(scores)), key=scores.__getitem__) == truth
    assert result.metrics == {f"my_multiple_choice/{metric}": count / 4 for metric, count in hits.items()}
    chosen = [tuple(line["chosen"].values()) for line in lines]
    assert any(len(set(each)) > 1 for each in chosen)  # the ways to compare do not always agree
    assert all(row.interval is not None and row.count == 4 for row in result.rows)
    assert result.about["my_multiple_choice"]["chance"] == pytest.approx((3 * 1 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize("score", ["sum", "average"])
@pytest.mark.parametrize("form", ["raw", "dialogue"])
def test_entropy_of_the_choice(material: Material, form: str, score: str, tmp_path: Path) -> None:
    path = task(tmp_path, "bias", PAIRS, choices="pair", score=score)
    result = igf.evaluate(str(material.folder / form), tasks=[path])
    model = load_model(material.folder / form).model
    bits, first = [], 0
    for row in PAIRS:
        parted = [tokens_of(material, form, "", choice) for choice in row["pair"]]
        logs = [direct(model, *pair) / (len(pair[1]) if score == "average" else 1) for pair in parted]
        shares = torch.tensor(logs, dtype=torch.float64).softmax(0)
        bits.append(float(-(shares * shares.log2()).sum()))
        first += int(shares.argmax()) == 0
    assert result.metrics["my_bias/entropy"] == pytest.approx(sum(bits) / 3, abs=1e-4)
    assert result.metrics["my_bias/first_preferred"] == pytest.approx(first / 3)
    assert 0.0 < sum(bits) / 3 < result.about["my_bias"]["most_entropy"] == pytest.approx((2 + math.log2(3)) / 3)


def test_a_model_without_preference_has_the_most_entropy(material: Material, tmp_path: Path) -> None:
    model = material.gpt()
    torch.nn.init.zeros_(model.wte.weight)
    path = task(tmp_path, "bias", [{"choices": ["a cat", "a dog"]}, {"choices": ["a fox", "a hen"]}])
    metrics = igf.evaluate(material.save("flat", model), tasks=[path]).metrics
    assert metrics["my_bias/entropy"] == pytest.approx(1.0) and metrics["my_bias/first_preferred"] == 0.5


def test_a_model_without_an_opinion_scores_what_chance_does(material: Material, tmp_path: Path) -> None:
    """Also where the right choice always stands first, as TruthfulQA's does."""
    model = material.gpt()
    torch.nn.init.zeros_(model.wte.weight)
    rows = [{"question": "Why?", "choices": choices, "answer": 0} for choices in (["a cat", "a dog"], ["a fox"] * 4)]
    path = task(tmp_path, "multiple_choice", rows, prompt="{question}")
    metrics = igf.evaluate(material.save("no_opinion", model), tasks=[path]).metrics
    assert metrics["my_multiple_choice/accuracy"] == pytest.approx((1 / 2 + 1 / 4) / 2)


@pytest.mark.parametrize(("scores", "right", "expected"), [
    ([-1.0, -2.0], 0, 1.0), ([-1.0, -2.0], 1, 0.0), ([-1.0, -1.0, -2.0], 1, 0.5), ([-1.0, -1.0, -2.0], 2, 0.0),
])
def test_equally_likely_choices_share_an_item(scores: list[float], right: int, expected: float) -> None:
    assert credit(scores, right) == expected


def test_shares_and_entropies_by_hand() -> None:
    likelihoods = [Likelihood(-1000.0, 4, False), Likelihood(-1000.0 - math.log(3), 2, False)]
    asked: Any = SimpleNamespace(likelihoods=likelihoods)
    assert shares_of(asked, "sum") == pytest.approx([0.75, 0.25])
    assert shares_of(asked, "average")[1] == pytest.approx(math.exp(-250 - math.log(3) / 2))
    assert entropy_bits([0.75, 0.25]) == pytest.approx(0.811278, abs=1e-6)
    assert entropy_bits([1.0, 0.0]) == 0.0 and entropy_bits([0.25] * 4) == 2.0


def test_blanks_at_the_seam_belong_to_the_choice(material: Material) -> None:
    loaded = load_model(material.folder / "raw")
    whole = material.tokenizer.encode("The cat saw")
    for prompt, between in (("The cat", " "), ("The cat ", " "), ("The cat ", ""), ("The cat", " ")):
        before, after = encode_choice(loaded, prompt, "saw", between)
        assert before + after == whole and before == material.tokenizer.encode("The cat")
    assert encode_choice(loaded, "", "The cat", " ") == ([], material.tokenizer.encode("The cat"))


def test_choices_as_texts_and_numbers_from_one(material: Material, tmp_path: Path) -> None:
    rows = [{"s": "The cat ran.", "label": 2, "who": "cat"}, {"s": "The dog", "label": "1", "who": "dog"}]
    path = task(tmp_path, "multiple_choice", rows, prompt="{s} Sad?", choice_texts=["yes {who}", "no"], answer="label",
                first_number=1)
    records = tmp_path / "records.jsonl"
    igf.evaluate(str(material.folder / "raw"), tasks=[path], records=str(records))
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [(line["choices"], line["answer"]) for line in lines] == [(["yes cat", "no"], 1), (["yes dog", "no"], 0)]


def test_examples_with_their_right_choice_stand_before_the_question(material: Material, tmp_path: Path) -> None:
    rows = [{"q": word, "choices": ["a", "b"], "answer": place % 2} for place, word in enumerate(("x", "y", "z"))]
    shown = {"x": "x: a", "y": "y: b", "z": "z: a"}
    path = task(tmp_path, "multiple_choice", rows, prompt="{q}:", instruction="Choose.", shots=2,
                shots_data="items.jsonl", separator="|")
    records = tmp_path / "records.jsonl"
    about = igf.evaluate(str(material.folder / "raw"), tasks=[path], records=str(records)).about["my_multiple_choice"]
    for line, row in zip(records.read_text().splitlines(), rows, strict=True):
        opening, *examples, question = json.loads(line)["prompt"].split("|")
        assert (opening, question) == ("Choose.", f"{row['q']}:")
        assert sorted(examples) == sorted(text for word, text in shown.items() if word != row["q"])
    assert about["shots"] == 2 and about["shots_data"]["sha256"] == about["sha256"]


def test_templates(material: Material, tmp_path: Path) -> None:
    asked = write_jsonl(tmp_path / "asked.jsonl", [{"question": "Who ran?", "choices": ["cat", "dog"], "answer": "A"}])
    pairs = write_jsonl(tmp_path / "pairs.jsonl", [{"sent_more": "He ran.", "sent_less": "She ran."}])
    model, records = str(material.folder / "raw"), tmp_path / "records.jsonl"
    found = igf.evaluate(model, tasks=["multiple_choice"], data=asked, records=str(records))
    assert set(found.metrics) == {"multiple_choice/accuracy"}
    assert json.loads(records.read_text())["prompt"] == "Question: Who ran?\nAnswer:"
    found = igf.evaluate(model, tasks=["bias"], data=pairs)
    # From one half either way is a preference, so neither a higher nor a lower share is better.
    assert {each.metric: each.higher_is_better for each in found.measures} == {"entropy": True, "first_preferred": None}


def test_a_prompt_that_is_cut_is_said(material: Material, tmp_path: Path) -> None:
    rows = [{"q": "The cat saw the dog. " * 30, "choices": ["a", "b"], "answer": 0}, ROWS[0]]
    path = task(tmp_path, "multiple_choice", rows, prompt="{q}")
    with pytest.warns(UserWarning, match="2 of 5 prompts with their choice are longer than the context of 48 tokens"):
        assert igf.evaluate(str(material.folder / "raw"), tasks=[path]).about["my_multiple_choice"]["cut"] == 2


@pytest.mark.parametrize(("row", "words"), [
    ({"choices": ["a"], "answer": 0}, "must have two or more choices, none empty, got \\['a'\\]"),
    ({"choices": ["a", " "], "answer": 0}, "must have two or more choices, none empty"),
    ({"choices": ["a", "b"], "answer": 2}, r"'answer' must be the number \(from 0\), .* of 2 choices, got 2"),
    ({"choices": ["a", "b"], "answer": "c"}, "of 2 choices, got 'c'"),
    ({"choices": ["a", "b"], "answer": True}, "of 2 choices, got True"),
    ({"choices": ["a", "b"]}, "must have the field 'answer'"),
    ({"choices": ["a", "the cat saw the dog " * 40], "answer": 0}, "a choice must fit the model's context"),
])
def test_items_that_cannot_be(material: Material, row: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = task(tmp_path, "multiple_choice", [{"choices": ["x", "y"], "answer": "A"}, row])
    with pytest.raises(DataError, match=words) as caught:
        igf.evaluate(str(material.folder / "raw"), tasks=[path])
    assert "items.jsonl:2" in str(caught.value)


def test_tasks_that_cannot_be(material: Material, tmp_path: Path) -> None:
    for keys, words in (
        ({"scores": []}, "scores must name at least one way to compare"), ({"scores": ["mean"]}, "scores"),
        ({"shots": 1}, "and needs shots_data"), ({"shots": -1}, "shots must not be negative"),
        ({"choice_texts": ["{a}"]}, "choice_texts must be two or more"), ({"choice_texts": ["{a}", "{"]}, "braces"),
    ):
        with pytest.raises(ConfigError, match=words):
            igf.evaluate(str(material.folder / "raw"), tasks=[task(tmp_path, "multiple_choice", ROWS, **keys)])
    with pytest.raises(DataError, match=r"must hold at least one .*, got none"):
        igf.evaluate(str(material.folder / "raw"), tasks=[task(tmp_path, "bias", [])])
    judge = material.save("judge", ScalarModel.from_gpt(material.gpt(seed=1)))
    with pytest.raises(CheckpointError, match=r"my_bias: .* must hold a language model, got a reward model"):
        igf.evaluate(judge, tasks=[task(tmp_path, "bias", PAIRS, choices="pair")])
