"""Ten people's feeling for words, standing in for the labelers who rank whole answers.

The VADER lexicon (Hutto and Gilbert 2014) carries ten human ratings from -4 to 4 for each of its entries. A labeler
here is one of the ten columns: the labeler's opinion of an answer is the sum of that column over the answer's rated
words, and answers are ranked by it, the most pleasant first, equal sums tied. The ratings are human and disagree as
humans do; that a whole answer is worth the sum of its words is our stand-in.

Not covered: negation, irony, grammar, truth. The ten ratings of two entries need not come from the same ten people, so
a column is a fixed draw of raters rather than one person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RATERS = 10
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def words(text: str) -> list[str]:
    """Lower-case words of the text, apostrophes kept inside a word."""
    return _WORD.findall(text.lower())


def dense_ranks(opinions: Sequence[float]) -> list[int]:
    """Ranks with 1 for the highest opinion; equal opinions share a rank and the next rank follows without a gap."""
    order = {value: rank for rank, value in enumerate(sorted(set(opinions), reverse=True), start=1)}
    return [order[value] for value in opinions]


@dataclass(frozen=True)
class Labelers:
    """The ten rating columns.

    ratings: word -> ten whole numbers in -4..4, one for each labeler.
    """

    ratings: Mapping[str, tuple[int, ...]]

    def opinion(self, answer: str, labeler: int) -> int:
        """Sum of one labeler's ratings (0..9) over the answer's rated words; 0 when none is rated."""
        return sum(self.ratings[word][labeler] for word in words(answer) if word in self.ratings)

    def mean_opinion(self, answer: str) -> float:
        """The opinion averaged over all ten labelers: what the reward model tries to learn, without the noise."""
        return sum(self.opinion(answer, labeler) for labeler in range(RATERS)) / RATERS

    def rank(self, answers: Sequence[str], labeler: int) -> list[int]:
        """One labeler's ranking of the answers: 1 = best, ties share a rank."""
        return dense_ranks([self.opinion(answer, labeler) for answer in answers])

    def agreement(self, groups: Sequence[Sequence[str]]) -> float:
        """How often two different labelers order a pair of answers of one prompt alike, over pairs that both order.

        This bounds what any reward model can reach on one labeler's rankings, as the paper's labelers, who agree with
        each other 72.6 +- 1.5 % of the time (Ouyang et al. 2022, section 3.4), bound theirs.
        """
        same = both = 0
        for answers in groups:
            opinions = [[self.opinion(answer, labeler) for answer in answers] for labeler in range(RATERS)]
            for first in range(len(answers)):
                for second in range(first + 1, len(answers)):
                    signs = [o[first] - o[second] for o in opinions]
                    up, down = sum(s > 0 for s in signs), sum(s < 0 for s in signs)
                    both += (up + down) * (up + down - 1)
                    same += up * (up - 1) + down * (down - 1)
        return same / both if both else 0.0
