"""Instructions made from prose: sentences end where a reader ends them, prompts are used once."""

from __future__ import annotations

from instructgpt_fast.quickstart import assets
from instructgpt_fast.quickstart.tasks import (
    ANSWER_WORDS,
    CONTINUE,
    OPENING_WORDS,
    Example,
    definition_examples,
    quiz_examples,
    sentences,
    shuffled,
    story_examples,
)


def test_sentences_keep_quotes_and_titles_whole() -> None:
    paragraph = '"My dear Mr. Bennet," said his lady one day. "Have you heard?" Mr. Bennet had not.'
    parts = ['"My dear Mr. Bennet," said his lady one day.', '"Have you heard?"', "Mr. Bennet had not."]
    assert sentences(paragraph) == parts


def test_story_examples_are_neighbours_of_fitting_length() -> None:
    text = "Chapter 1\nShe walked to the house alone. It was a very fine day. No."
    found = story_examples([assets.Document("Chapter 1", text)])
    assert found == [Example(CONTINUE.format(opening="She walked to the house alone."), "It was a very fine day.")]


def test_lengths_hold_on_the_whole_corpus() -> None:
    examples = story_examples(assets.corpus(("austen",)))
    assert len(examples) > 5000
    prefix = len(CONTINUE.format(opening="").split())
    for example in examples:
        assert OPENING_WORDS[0] <= len(example.prompt.split()) - prefix <= OPENING_WORDS[1]
        assert ANSWER_WORDS[0] <= len(example.response.split()) <= ANSWER_WORDS[1]


def test_facts_become_questions_with_answers() -> None:
    definitions = definition_examples(assets.definitions()[:5])
    assert all(e.prompt.startswith("What does ") and e.response.endswith(".") for e in definitions)
    facts = quiz_examples(assets.quiz_facts()[:5])
    assert all(e.prompt and e.response for e in facts)


def test_shuffling_depends_on_the_seed_alone_and_drops_repeated_prompts() -> None:
    examples = [Example(f"p{i % 50}", str(i)) for i in range(100)]
    once, again, other = shuffled(examples, 1), shuffled(examples, 1), shuffled(examples, 2)
    assert once == again != other
    assert len(once) == len({e.prompt for e in once}) == 50
