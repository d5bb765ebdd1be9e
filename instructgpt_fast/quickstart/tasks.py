"""The quickstart's instructions, made from real text: story openings, word meanings and quiz questions.

Three kinds, as a labeler would write them:

* "Continue the story:" with a sentence of a novel; the demonstration is the sentence that follows it in the book.
* "What does X mean?" with WordNet's definition.
* a quiz question with its accepted answer.

Reward modelling and PPO use the story openings, where a labeler's feeling for words can tell two answers apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from instructgpt_fast.quickstart.assets import Definition, Document, QuizFact

CONTINUE = "Continue the story: {opening}"
DEFINE = "What does {word} mean?"

# Long enough to set a scene, short enough that a prompt and its answer stay below a hundred tokens.
OPENING_WORDS = (5, 26)
ANSWER_WORDS = (4, 28)

# A sentence ends at its stop or at the quotation mark behind it; the next one begins with a capital.
_SENTENCE_END = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["')\]]))\s+(?=["'(\[]?[A-Z])""")
# A full stop after these ends no sentence.
_TITLE = re.compile(r"\b(?:Mr|Mrs|Miss|Dr|St|Esq|Sir|Capt|Col|Gen|Messrs)\.$")


@dataclass(frozen=True)
class Example:
    """One instruction with the answer that a person gave."""

    prompt: str
    response: str


def sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph, titles such as "Mr." not taken for an end."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(paragraph.strip()):
        if found and _TITLE.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        elif piece:
            found.append(piece)
    return found


def _within(sentence: str, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= len(sentence.split()) <= bounds[1]


def story_examples(documents: Sequence[Document]) -> list[Example]:
    """Every pair of neighbouring sentences of fitting length, the first as opening and the second as answer."""
    examples = []
    for document in documents:
        for paragraph in document.text.split("\n")[1:]:
            parts = sentences(paragraph)
            for opening, answer in zip(parts, parts[1:], strict=False):
                if _within(opening, OPENING_WORDS) and _within(answer, ANSWER_WORDS):
                    examples.append(Example(CONTINUE.format(opening=opening), answer))
    return examples


def definition_examples(entries: Sequence[Definition]) -> list[Example]:
    """WordNet's definitions as answers."""
    return [Example(DEFINE.format(word=entry.word), f"{entry.definition.capitalize()}.") for entry in entries]


def quiz_examples(facts: Sequence[QuizFact]) -> list[Example]:
    """Quiz questions with the preferred answer."""
    return [Example(fact.question, fact.answers[0]) for fact in facts]


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples in a random order that depends on the seed alone, one of each prompt."""
    unique = list({example.prompt: example for example in examples}.values())
    random.Random(seed).shuffle(unique)
    return unique
