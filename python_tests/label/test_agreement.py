"""Agreement of labelers against hand-computed numbers and against the interval's own coverage."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructgpt_fast.cli.command_line import main
from instructgpt_fast.label import agreement
from instructgpt_fast.label.agreement import agreement_of
from instructgpt_fast.label.form import FIELD_NAMES
from instructgpt_fast.label.store import Store

from .labelled import fill, ranking, running, signed_in

IDS = ("1", "2", "3")


def said(order: str, overall: list[int] | None = None, yes: str = "") -> dict[str, Any]:
    """A payload of three answers: their order such as "1 2=3", overall qualities, and who is said to hallucinate."""
    ratings = {
        one: {"overall": None if overall is None else overall[place],
              "fields": {**dict.fromkeys(FIELD_NAMES), "hallucination": one in yes.split()}}
        for place, one in enumerate(IDS)
    }
    return {"ranking": [group.split("=") for group in order.split()], "ratings": ratings}


def test_ties_are_left_out_of_one_rate_and_counted_as_words_in_the_other() -> None:
    found = agreement_of([(1, 1, said("1 2 3")), (1, 2, said("1 2=3"))])
    # Pairs 1-2 and 1-3 alike; 2-3 is tied by the second.
    assert (found.agreement.value, found.agreement.count) == (1.0, 2)
    assert (found.agreement_with_ties.value, found.agreement_with_ties.count) == (pytest.approx(2 / 3), 3)
    assert found.agreement.half_width is None  # one prompt says nothing about others
    both = agreement_of([(1, 1, said("1=2=3")), (1, 2, said("3=2=1"))])
    assert (both.agreement.value, both.agreement.count, both.agreement_with_ties.value) == (None, 0, 1.0)


def test_every_pair_of_labelers_of_a_prompt_counts() -> None:
    found = agreement_of([(1, 1, said("1 2 3")), (1, 2, said("3 2 1")), (1, 3, said("1 3 2")), (2, 1, said("1 2 3"))])
    # 1-2: none of 3; 1-3: 2 of 3; 2-3: 1 of 3. The second prompt was ranked by one alone.
    assert (found.agreement.value, found.agreement.count) == (pytest.approx(3 / 9), 9)
    assert (found.labelers, found.prompts) == (3, 1)


def test_the_interval_takes_the_prompt_as_the_unit() -> None:
    shares = [(3, 3), (1, 3), (2, 3), (3, 3)]
    orders = {3: "1 2 3", 2: "1 3 2", 1: "3 1 2"}
    found = agreement_of(
        (prompt, labeler, said("1 2 3" if labeler == 1 else orders[alike]))
        for prompt, (alike, _) in enumerate(shares) for labeler in (1, 2)
    )
    assert found.agreement.value == pytest.approx(9 / 12)
    # Equal numbers of pairs a prompt: the mean of the prompts' shares, with Student's t at 3 degrees of freedom.
    spread = np.std([alike / pairs for alike, pairs in shares], ddof=1) / math.sqrt(4)
    assert found.agreement.half_width == pytest.approx(3.182446 * spread, rel=1e-5)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator, truth, covered = np.random.default_rng(0), 0.75, 0
    for _ in range(200):
        labels = []
        for prompt in range(30):
            # Labelers who agree on a prompt in all of it or in a third: pairs of a prompt depend on each other.
            alike = "1 2 3" if generator.random() < 0.625 else "3 1 2"
            labels += [(prompt, 1, said("1 2 3")), (prompt, 2, said(alike))]
        rate = agreement_of(labels).agreement
        assert rate.value is not None and rate.half_width is not None
        covered += abs(rate.value - truth) <= rate.half_width
    assert 0.90 <= covered / 200 <= 0.99


def test_cohens_kappa_of_a_field_and_the_difference_of_overall() -> None:
    # 20 answers, both yes, first alone yes, second alone yes, both no.
    counts = {(True, True): 7, (True, False): 3, (False, True): 2, (False, False): 9}
    answers = [words for words, count in counts.items() for _ in range(count)]
    labels = []
    for prompt, group in enumerate(itertools.batched(answers, 3) if hasattr(itertools, "batched")
                                   else [answers[place : place + 3] for place in range(0, 21, 3)]):
        for labeler in (0, 1):
            yes = " ".join(one for one, words in zip(IDS, group, strict=True) if words[labeler])
            labels.append((prompt, labeler, said("1 2 3", [4 + labeler, 4, 4 - labeler], yes)))
    found = agreement_of(labels)
    kappa = found.fields["hallucination"]
    observed, expected = 16 / 21, (10 * 9 + 11 * 12) / 21**2
    assert kappa.value == pytest.approx((observed - expected) / (1 - expected))
    assert (kappa.agreement, kappa.count) == (pytest.approx(observed), 21)
    assert found.overall.value == pytest.approx(2 / 3)
    assert found.fields["opinion"].count == 0 and found.fields["opinion"].value is None


def test_of_more_than_two_labelers_kappa_is_the_mean_over_pairs_and_constant_ones_have_none() -> None:
    labels = [(1, 1, said("1 2 3", yes="1")), (1, 2, said("1 2 3", yes="1")), (1, 3, said("1 2 3", yes="2"))]
    found = agreement_of(labels).fields["hallucination"]
    # Labelers 1 and 2: 1; the others: observed 1/3, by chance (1 + 4) / 9.
    other = (1 / 3 - 5 / 9) / (1 - 5 / 9)
    assert found.value == pytest.approx((1 + other + other) / 3)
    same = agreement_of([(1, 1, said("1 2 3")), (1, 2, said("1 2 3"))]).fields["hallucination"]
    assert (same.value, same.agreement) == (None, 1.0)


def test_a_database_is_measured_while_its_server_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.sqlite"
    store = Store(path)
    fill(store, prompts=3)
    store.close()
    with running(path, labels_per_task=2) as server:
        assert server.http.get("/api/agreement").json()["agreement"] == {
            "value": None, "half_width": None, "count": 0, "prompts": 0}
        for number, order in enumerate(("0 1 2 3", "0 2 1 3")):
            client = signed_in(server.http, f"labeler {number}")
            while (task := client.task()) is not None:
                client.put(task["id"], 0, ranking(task, order, overall=3 + number))
        # A label that is not finished does not count.
        late = signed_in(server.http, "Late")
        late.put(1, 0, ranking(late.again(1)), "draft")
        told = server.http.get("/api/agreement").json()
        found = agreement(path)
        assert told == json.loads(json.dumps(found.described()))
        output = tmp_path / "agreement.json"
        assert main(["label", "agreement", "--database", str(path), "--output", str(output)]) == 0
    assert json.loads(output.read_text()) == told
    assert (found.agreement.value, found.agreement.half_width) == (pytest.approx(5 / 6), pytest.approx(0.0))
    assert found.overall.value == 1.0 and (found.labelers, found.prompts) == (2, 3)
    table = capsys.readouterr().out
    assert table.startswith("2 labelers, 3 prompts ranked by two or more\n") and "0.8333  +- 0.0000" in table
