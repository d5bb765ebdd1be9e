"""A perplexity task file end to end: item by item, with intervals, equal to the perplexity of each text alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import instructgpt_fast as igf
from instructgpt_fast.errors import DataError
from instructgpt_fast.evaluate import joined, perplexity
from python_tests.train.material import SENTENCES, Material, write_jsonl


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    made = Material(tmp_path_factory.mktemp("material"))
    made.save("base", made.gpt())
    return made


def task(folder: Path, rows: list[dict[str, str]], **keys: object) -> str:
    write_jsonl(folder / "texts.jsonl", rows)
    lines = ['kind = "perplexity"', 'data = "texts.jsonl"', *(f"{key} = {json.dumps(v)}" for key, v in keys.items())]
    path = folder / "held_out.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_each_text_is_judged_by_itself(material: Material, tmp_path: Path) -> None:
    texts = [*SENTENCES[:5], "Käse"]
    path = task(tmp_path, [{"body": text} for text in texts], text="{body}")
    records = tmp_path / "records.jsonl"
    output = tmp_path / "result.json"
    result = igf.evaluate(
        str(material.folder / "base"), tasks=[path], records=str(records), output=str(output), batch_size=2
    )
    singly = [perplexity(material.gpt(), material.tokenizer, joined(material.tokenizer, [text])) for text in texts]
    nats, tokens, size = (sum(getattr(each, name) for each in singly) for name in ("nats", "tokens", "bytes"))
    assert size == sum(len(text.encode()) for text in texts)
    # float32 logits on both sides, in batches of other shapes.
    assert result.metrics["held_out/loss"] == pytest.approx(nats / tokens, rel=1e-5)
    assert result.metrics["held_out/perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert result.metrics["held_out/bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert [row.count for row in result.rows] == [tokens, tokens, size]
    for row in result.rows:
        assert row.interval is not None and row.interval[0] < row.value < row.interval[1]
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [line["line"] for line in lines] == [1, 2, 3, 4, 5, 6] and {line["task"] for line in lines} == {"held_out"}
    assert [line["nats"] for line in lines] == pytest.approx([each.nats for each in singly], rel=1e-5)
    stored = json.loads(output.read_text())
    assert stored["tasks"]["held_out"]["items"] == 6 and len(stored["tasks"]["held_out"]["sha256"]) == 64
    assert stored["intervals"]["held_out/loss"] == list(result.rows[0].interval or ())


def test_a_checkpoint_against_itself_and_another(material: Material, tmp_path: Path) -> None:
    path = task(tmp_path, [{"text": text} for text in SENTENCES[:12]])
    first = igf.evaluate(str(material.folder / "base"), tasks=[path]).measures[0]
    other = igf.evaluate(material.save("other", material.gpt(seed=9)), tasks=[path]).measures[0]
    same = first.difference(first)
    assert same.value == 0.0 and same.interval is None
    found = first.difference(other)
    assert found.interval is not None and found.value == pytest.approx(first.value - other.value)


def test_a_text_without_tokens(material: Material, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="held_out: a text must have at least one token, got none in 1 items"):
        igf.evaluate(str(material.folder / "base"), tasks=[task(tmp_path, [{"text": ""}])])
