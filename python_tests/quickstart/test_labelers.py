"""The stand-in labelers: opinions are sums of one rating column, ranks keep ties, agreement is counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, permutations

from instructgpt_fast.quickstart.assets import vader_ratings
from instructgpt_fast.quickstart.labelers import RATERS, Labelers, dense_ranks, words
from instructgpt_fast.quickstart.ranking import Sampler, ranked_answers

GOOD = (3, 2, 3, 1, 3, 2, 3, 3, 2, 3)
BAD = (-2, -3, -1, -2, 0, -2, -3, -2, -1, -2)
LABELERS = Labelers({"good": GOOD, "bad": BAD})


def test_words_keep_apostrophes_and_drop_punctuation() -> None:
    assert words("\"It's GOOD,\" she said--good!") == ["it's", "good", "she", "said", "good"]


def test_opinion_sums_one_column() -> None:
    assert LABELERS.opinion("A good, good thing; not bad.", 0) == 3 + 3 - 2
    assert LABELERS.opinion("nothing rated here", 4) == 0
    assert LABELERS.mean_opinion("good bad") == sum(GOOD + BAD) / RATERS


def test_ranks_are_dense_and_keep_ties() -> None:
    assert dense_ranks([2, 5, 2, -1]) == [2, 1, 2, 3]
    assert LABELERS.rank(["bad", "good", "plain", "neutral"], 0) == [3, 1, 2, 2]
    # The fifth labeler rates "bad" 0, so it ties with the plain answers.
    assert LABELERS.rank(["bad", "good", "plain"], 4) == [2, 1, 2]


def test_agreement_equals_counting_every_pair_of_labelers() -> None:
    labelers = Labelers(vader_ratings(words_only=True))
    groups = [["a kind friend", "a strange friend", "an odd day", "a sad and happy end"], ["war", "duty", "proud"]]
    same = both = 0
    for answers in groups:
        for left, right in combinations(answers, 2):
            signs = [labelers.opinion(left, k) - labelers.opinion(right, k) for k in range(RATERS)]
            for one, other in permutations(signs, 2):
                if one and other:
                    both += 1
                    same += (one > 0) == (other > 0)
    assert 0 < same < both
    assert labelers.agreement(groups) == same / both


def test_nobody_to_agree_gives_zero() -> None:
    assert LABELERS.agreement([["plain", "words"]]) == 0.0


class Drawn(Sampler):
    """Answers that were drawn before; every prompt gets the first of them."""

    def answers(self, prompts: Sequence[str], counts: Sequence[int], first: int) -> list[list[str]]:
        said = {"some": ["good", "", "bad", "", "", "", "", "", ""], "one": ["good", *[""] * 8], "all": ["good"] * 9}
        return [said[prompt][:count] for prompt, count in zip(prompts, counts, strict=True)]


def test_empty_answers_are_not_ranked() -> None:
    """A reward model cannot be trained on them, and a young model draws some."""
    rows = ranked_answers(Drawn(None, 8, 0), ["some", "one", "all"], LABELERS, name="answers", progress=False)
    assert [row["prompt"] for row in rows] == ["some", "all"]
    assert (rows[0]["completions"], len(rows[0]["ranks"])) == (["good", "bad"], 2)
    assert 4 <= len(rows[1]["completions"]) == len(rows[1]["ranks"]) <= 9
