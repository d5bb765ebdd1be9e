"""A talk with a model: who said what so far, what is forgotten when the context is full, and how it is saved."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.files import atomic_write
from instructgpt_fast.generate import Engine, stream
from instructgpt_fast.generate.text import engine_for
from instructgpt_fast.tokenizer import Message

Exchange = tuple[str, str]
"""What the user said and what the model answered."""


class Conversation:
    """The exchanges of a talk, and the options that its next answer is drawn with.

    loaded: the model. sampling: options of the sampler; the seed grows by one with each answer. system: said before the
    talk. A model without dialogue format continues each message on its own.
    Raises ConfigError for a system message that the model's prompt format cannot hold.
    """

    def __init__(self, loaded: Any, sampling: dict[str, Any], system: str | None = None) -> None:
        self.loaded = loaded
        self.sampling = {"max_new_tokens": 128, "seed": 0, **sampling}
        self.exchanges: list[Exchange] = []
        self.forgotten = 0  # exchanges that the context had no more room for; they are saved all the same
        self._own_files: set[Path] = set()
        self._engine: Engine | None = None  # kept, because the next prompt begins with what was said so far
        self.system: str | None = None
        self.set_system(system)

    @property
    def name(self) -> str:
        """The run that the model came from, or its folder."""
        path: Path = self.loaded.path.absolute()
        return path.parent.name if path.name.startswith("checkpoint-") else path.name

    @property
    def remembers(self) -> bool:
        """Whether the model is told what was said before."""
        return bool(self.loaded.prompt_format == "dialogue")

    def set_system(self, text: str | None) -> None:
        """Have `text` said before the talk from now on, or nothing. Raises ConfigError for a model without roles."""
        if text is not None and not self.remembers:
            raise ConfigError(
                "chat: a system message needs a model of prompt_format 'dialogue', got 'raw'; leave it out."
            )
        self.system = text

    def forget(self) -> None:
        """Begin anew; the system message and the options stay."""
        self.exchanges.clear()
        self.forgotten = 0

    def answer(self, text: str) -> Generator[str, None, None]:
        """Yield the answer to `text` piece by piece. Leaving it early keeps what was said until then.

        An exchange in which the model said nothing is not remembered. Raises DataError for a text that is empty or
        does not fit into the context.
        """
        prompt: Any = self._fitting(text) if self.remembers else text
        said = ""
        options = dict(self.sampling)
        self.sampling["seed"] += 1
        if self._engine is None:
            self._engine = engine_for(self.loaded)
        try:
            with contextlib.closing(stream(self.loaded, prompt, engine=self._engine, **options)) as pieces:
                for piece in pieces:
                    said += piece
                    yield piece
        except BaseException as stopped:
            # Left between two pieces it is whole; Ctrl-C or an error in the middle of a step leaves it who knows how.
            if not isinstance(stopped, GeneratorExit):
                self._engine = None
            raise
        finally:
            if said:
                self.exchanges.append((text, said))

    def take_back(self) -> str:
        """Remove the last exchange and return what the user said. Raises DataError when there is none."""
        if not self.exchanges:
            raise DataError("chat: there must be an answer to try again, got none yet; say something first.")
        self.forgotten = min(self.forgotten, len(self.exchanges) - 1)
        return self.exchanges.pop()[0]

    def save(self, file: str) -> Path:
        """Write the talk as demonstrations in jsonl, which `sft` can learn from, whole or not at all.

        A dialogue is one line of {"messages"}; of a model without roles each exchange is a line of {"prompt",
        "response"}. Raises DataError for an empty talk, a file that was there before this talk, or one that cannot be
        written.
        """
        path = Path(file).expanduser().absolute()
        if not self.exchanges:
            raise DataError("chat: a talk to save must have an answer, got none yet; say something first.")
        if path.exists() and path not in self._own_files:
            raise DataError(f"chat: {path} must not be there yet, got a file that is; choose another name.")
        if self.remembers:
            records: list[Any] = [{"messages": [message._asdict() for message in self._messages(self.exchanges)]}]
        else:
            records = [{"prompt": asked, "response": said} for asked, said in self.exchanges]
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        written = atomic_write(path, "".join(lines), error=DataError)
        self._own_files.add(path)
        return written

    def _messages(self, exchanges: list[Exchange]) -> list[Message]:
        opening = [] if self.system is None else [Message("system", self.system)]
        turns = (Message(*turn) for asked, said in exchanges for turn in (("user", asked), ("assistant", said)))
        return [*opening, *turns]

    def _fitting(self, text: str) -> list[Message]:
        """The prompt, without the oldest exchanges that leave no room for an answer; `text` itself always stays.

        At most half of the context is kept free: a long answer may be cut, a talk must not become a monologue.
        """
        context = self.loaded.model.config.n_positions
        room = min(self.sampling["max_new_tokens"], context // 2)
        while True:
            messages = [*self._messages(self.exchanges[self.forgotten:]), Message("user", text)]
            length = len(self.loaded.tokenizer.encode_prompt(messages, "dialogue"))
            if length + room <= context or self.forgotten == len(self.exchanges):
                return messages
            self.forgotten += 1
