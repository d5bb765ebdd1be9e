"""K answers to a prompt from several checkpoints: which checkpoint draws which, with which seed, and what is kept.

Answer k of a prompt comes from checkpoint (k + o) mod C, where o depends on the prompt alone, so that every checkpoint
gets its share. Seeds depend on the run's seed, the prompt, k, and how often it was drawn: on the CPU the answers to a
prompt do not depend on which other prompts there are, in what order, or how often the work was interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.device import choose_device, torch_dtype
from instructgpt_fast.errors import CheckpointError, DataError
from instructgpt_fast.generate import Engine, Request, SamplingConfig
from instructgpt_fast.generate.requests import check_prompt
from instructgpt_fast.label.options import LabelConfig
from instructgpt_fast.label.store import Answer
from instructgpt_fast.label.tasks import content_of
from instructgpt_fast.model import GPT, PAGE_SIZE
from instructgpt_fast.tokenizer import as_messages


class StoppedError(Exception):
    """The work was told to end before it was done."""


def load_checkpoints(config: LabelConfig) -> list[Loaded]:
    """Every checkpoint of the options. Raises CheckpointError, also for one that is no language model."""
    device, _ = choose_device(config.device)
    found = [load_model(path, dtype=torch_dtype(config.dtype), device=device) for path in config.checkpoints]
    for loaded in found:
        if not isinstance(loaded.model, GPT):
            raise CheckpointError(
                f"label: {loaded.path} must hold a language model, got the scalar model of stage {loaded.stage!r}; "
                "use the checkpoint of a pretrain, sft or ppo run."
            )
    return found


def sampling_of(config: LabelConfig) -> SamplingConfig:
    """How answers are drawn. Raises ConfigError for stop strings that cannot be served."""
    return SamplingConfig(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, stop=config.stop
    )


def seed_of(seed: int, content: str, slot: int, draw: int) -> int:
    """The seed of a draw, in [0, 2^63)."""
    return _number(f"{seed}/{slot}/{draw}/{content}") >> 1


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


@dataclass
class Asked:
    """A prompt whose answers are being drawn. tokens: of the prompt, one list a checkpoint. kept: slot -> answer."""

    id: int
    content: str
    tokens: Sequence[Sequence[int]]
    kept: dict[int, Answer] = field(default_factory=dict)

    def checkpoint_of(self, slot: int) -> int:
        """Which checkpoint draws the answer of a slot."""
        return (slot + _number(self.content)) % len(self.tokens)

    def keep(self, slot: int, answer: Answer) -> None:
        """Keep an answer unless it says nothing, or the same as another: white space around makes no difference."""
        said = {kept.text.strip() for kept in self.kept.values()}
        if answer.text.strip() and answer.text.strip() not in said:
            self.kept[slot] = answer

    def in_order(self) -> list[Answer]:
        """The answers in an order that tells nothing about who gave them."""
        return sorted(self.kept.values(), key=lambda answer: _number(f"{self.content}/{answer.text}"))


class AnswerSource:
    """Draws answers with loaded checkpoints; one thread calls it."""

    def __init__(self, loaded: Sequence[Loaded], config: LabelConfig) -> None:
        self._loaded, self._config, self._sampling = list(loaded), config, sampling_of(config)
        self._engines: list[Engine] = []

    def asked(self, identity: int, prompt: Any) -> Asked:
        """A prompt as its checkpoints read it. Raises DataError for one that a checkpoint cannot answer."""
        tokens = []
        for loaded in self._loaded:
            given = prompt if isinstance(prompt, str) else as_messages(prompt)
            try:
                encoded = loaded.tokenizer.encode_prompt(given, loaded.prompt_format)
                check_prompt("label", encoded, loaded.model.config, "the prompt")
            except DataError as error:
                raise DataError(f"{loaded.path}: {error.message}") from error
            tokens.append(encoded)
        return Asked(identity, content_of(prompt), tokens)

    def prepare(self, longest: int) -> None:
        """Make the engines, with room for prompts of up to `longest` tokens."""
        rows = self._config.batch_size
        for loaded in self._loaded:
            assert isinstance(loaded.model, GPT)
            room = min(longest + self._config.max_new_tokens, loaded.model.config.n_positions)
            self._engines.append(Engine(
                loaded.model, eos_id=loaded.tokenizer.eos_id, tokenizer=loaded.tokenizer, max_rows=rows,
                cache_tokens=rows * -(-room // PAGE_SIZE) * PAGE_SIZE,
            ))

    def draw(self, prompts: Sequence[Asked], stopped: Callable[[], bool]) -> None:
        """Draw the answers of prompts; those that are empty or doubled are drawn again, `redraws` times at most.

        Raises StoppedError as soon as `stopped` says so, and TrainingError for a model whose logits are NaN.
        """
        slots = range(self._config.answers_per_prompt)
        # Drawing the likeliest tokens again gives them again.
        draws = 1 + (self._config.redraws if self._config.temperature > 0 else 0)
        for draw in range(draws):
            found: dict[tuple[int, int], Answer] = {}
            for number in range(len(self._loaded)):
                wanted = {
                    place: own for place, asked in enumerate(prompts)
                    if (own := [k for k in slots if k not in asked.kept and asked.checkpoint_of(k) == number])
                }
                found.update(self._drawn(number, prompts, wanted, draw, stopped))
            # In the order of the slots: what is kept does not depend on which checkpoint was asked first.
            for (place, slot), answer in sorted(found.items(), key=lambda item: item[0]):
                prompts[place].keep(slot, answer)
            if not found:
                return

    def _drawn(
        self, number: int, prompts: Sequence[Asked], wanted: dict[int, list[int]], draw: int,
        stopped: Callable[[], bool],
    ) -> dict[tuple[int, int], Answer]:
        """(place of the prompt, slot) -> what the checkpoint answers. wanted: place -> slots."""
        engine, path = self._engines[number], str(self._loaded[number].path)
        seeds = {
            place: [seed_of(self._config.seed, prompts[place].content, slot, draw) for slot in own]
            for place, own in wanted.items()
        }
        tickets = {
            engine.submit(Request(prompts[place].tokens[number], self._sampling, len(own), seeds[place])): place
            for place, own in wanted.items()
        }
        texts: dict[tuple[int, int], str] = {}
        while engine.busy:
            if stopped():
                for ticket in tickets:
                    engine.cancel(ticket)
                raise StoppedError
            for drawn in engine.step():
                key = (drawn.ticket, drawn.index)
                texts[key] = texts.get(key, "") + drawn.text
        return {
            (place, slot): Answer(texts[ticket, index], path, seeds[place][index])
            for ticket, place in tickets.items() for index, slot in enumerate(wanted[place])
        }
