"""A talk with a model in the terminal: turns are remembered until the context is full."""

from __future__ import annotations

from typing import IO, Any

from instructgpt_fast.errors import ConfigError
from instructgpt_fast.generate import stream
from instructgpt_fast.tokenizer import Message

HELP = "An empty line or Ctrl-D ends the talk, /new begins another one.\n"


def converse(loaded: Any, sampling: dict[str, Any], system: str | None, source: IO[str], out: IO[str]) -> None:
    """Answer the lines of `source` on `out`, each piece as it is drawn.

    loaded: the model. sampling: options of the sampler; the seed grows by one with each answer. system: said before
    the talk. A model without dialogue format continues each line on its own.
    Raises ConfigError for a system message that the model's prompt format cannot hold.
    """
    dialogue = loaded.prompt_format == "dialogue"
    if system is not None and not dialogue:
        raise ConfigError("chat: a system message needs a model of prompt_format 'dialogue', got 'raw'; leave it out.")
    opening = [Message("system", system)] if system is not None else []
    turns = list(opening)
    seed = sampling.get("seed", 0)
    out.write(HELP)
    while True:
        out.write("> ")
        out.flush()
        line = source.readline().strip()
        if not line:
            out.write("\n")
            return
        if line == "/new":
            turns = list(opening)
            continue
        turns.append(Message("user", line))
        prompt: Any = line
        if dialogue:
            turns = fitting(loaded, turns, len(opening), sampling["max_new_tokens"])
            prompt = turns
        answer = ""
        for piece in stream(loaded, prompt, **{**sampling, "seed": seed}):
            answer += piece
            out.write(piece)
            out.flush()
        out.write("\n")
        turns.append(Message("assistant", answer))
        seed += 1


def fitting(loaded: Any, turns: list[Message], opening: int, room: int) -> list[Message]:
    """Forget the oldest exchanges until the prompt leaves `room` tokens of the context; the last question stays."""
    context = loaded.model.config.n_positions
    kept = list(turns)
    while len(kept) > opening + 1:
        if len(loaded.tokenizer.encode_prompt(kept, "dialogue")) + room <= context:
            break
        del kept[opening:opening + 2]
    return kept
