"""SQuAD's formula against its description, against the published script as others carry it, and on known behaviours."""

from __future__ import annotations

import importlib.util
import random
import string
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from instructgpt_fast.evaluate.short_answers import (
    accuracy,
    bare,
    exact_match,
    exact_match_measures,
    f1_measures,
    normalized,
    token_f1,
)

from .answered import answer_set, sentence


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """SQuAD's first script as lm-eval carries it; loaded alone, because lm-eval as a whole takes seconds."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("lm-eval is the judge")
    path = Path(package.submodule_search_locations[0]) / "tasks" / "qasper" / "metrics.py"
    spec = importlib.util.spec_from_file_location("squad_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_as_described(text: str) -> list[str]:
    """Written from the description: small letters; drop ASCII punctuation; drop articles; part at white space."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def f1_as_described(text: str, references: Sequence[str]) -> float:
    rights = [words for words in map(words_as_described, references) if words] or [[]]
    said = words_as_described(text)
    scores = []
    for right in rights:
        left, common = list(right), 0
        for word in said:
            if word in left:
                left.remove(word)
                common += 1
        if not said or not right:
            scores.append(float(said == right))
        else:
            precision, recall = common / len(said), common / len(right)
            scores.append(2 * precision * recall / (precision + recall) if common else 0.0)
    return max(scores)


@pytest.mark.parametrize(("text", "references", "exact", "f1"), [
    ("Denver Broncos", ["Denver Broncos"], 1, 1.0),
    ("the Denver Broncos!", ["Denver  broncos"], 1, 1.0),           # articles, case, punctuation, blanks
    ("Broncos", ["Denver Broncos", "The Broncos"], 1, 1.0),         # the best of several
    ("Carolina Panthers", ["Denver Broncos"], 0, 0.0),
    ("Denver", ["Denver Broncos"], 0, 2 / 3),
    ("in the city of Denver", ["Denver"], 0, 0.4),                  # in, city, of, Denver: precision 1/4
    ("dog dog", ["dog"], 0, 2 / 3),                                 # words as bags
    ("", ["Denver"], 0, 0.0),                                       # nothing said where there is an answer
    ("", [], 1, 1.0),                                               # nothing said where there is none
    ("Denver", [], 0, 0.0),
    ("the", [], 1, 1.0),                                            # nothing is left of it
    ("Denver", ["", "Denver"], 1, 1.0),                             # a reference of nothing does not count
    ("U.S.A.", ["USA"], 1, 1.0),
    ("twenty-five", ["twenty five"], 0, 0.0),                       # a hyphen goes without a blank
    ("theatre", ["atre"], 0, 0.0),                                  # articles are whole words
])
def test_known_behaviours(text: str, references: list[str], exact: int, f1: float) -> None:
    assert exact_match(text, references) == exact
    assert token_f1(text, references) == pytest.approx(f1) == pytest.approx(f1_as_described(text, references))


def test_random_text_by_the_description_and_the_script(script: ModuleType) -> None:
    generator = random.Random(0)
    differing = 0
    for _ in range(400):
        text = sentence(generator, 4)
        references = [sentence(generator, 4) for _ in range(generator.randint(0, 3))]
        assert token_f1(text, references) == pytest.approx(f1_as_described(text, references))
        assert normalized(text) == script.normalize_answer(text) == " ".join(words_as_described(text))
        for reference in references:
            if normalized(text) or normalized(reference):
                theirs = script.f1_abstractive([text], [reference])
                assert token_f1(text, [reference]) == pytest.approx(theirs)
                differing += 0 < theirs < 1
    assert differing > 50


def test_corpus_numbers_in_percent_and_by_answerability() -> None:
    texts = [["Denver Broncos"], ["Denver"], [""], ["Not in background."], ["Denver"]]
    references = [["Denver Broncos"], ["Denver Broncos"], ["x"], [], []]
    answers = answer_set(texts, references, no_answer="Not in background.")
    exact = {each.metric: each for each in exact_match_measures(answers)}
    assert {name: each.value for name, each in exact.items()} == pytest.approx(
        {"exact_match": 40.0, "exact_match_has_answer": 100 / 3, "exact_match_no_answer": 50.0}
    )
    f1 = {each.metric: each for each in f1_measures(answers)}
    assert f1["f1"].value == pytest.approx(100 * (1 + 2 / 3 + 0 + 1 + 0) / 5)
    assert f1["f1_has_answer"].over == 3 and f1["f1_no_answer"].over == 2
    low, high = exact["exact_match"].interval() or (0.0, 0.0)
    assert low == pytest.approx(11.762, abs=1e-3) and high == pytest.approx(76.928, abs=1e-3)  # Wilson, 2 of 5


def test_what_says_no_answer_is_nothing_said() -> None:
    """Only where the task has words for it, and only when they are all that is said."""
    for said, exact in (("not in background", 100.0), ("It is not in background.", 0.0)):
        assert exact_match_measures(answer_set([[said]], [[]], no_answer="Not in background."))[0].value == exact
    said = [["Not in background."]]
    assert exact_match_measures(answer_set(said, [[]]))[0].value == 0.0
    assert exact_match_measures(answer_set(said, [["x"]], no_answer="Not in background."))[0].value == 0.0


def test_labels() -> None:
    texts = [["Positive."], ["negative"], ["positive, very"], ["  NEGATIVE! "]]
    answers = answer_set(texts, [["positive"], ["positive"], ["positive"], ["negative"]])
    measure, = accuracy(answers)
    assert measure.value == 0.5 and measure.is_share
    assert bare(' "Yes." ') == "yes"


def test_the_mean_of_several_answers() -> None:
    answers = answer_set([["yes", "no"], ["no", "no"]], [["yes"], ["no"]])
    assert accuracy(answers)[0].items[:, 0].tolist() == [0.5, 1.0]
