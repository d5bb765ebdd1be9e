"""The command `generate`: answers to one prompt, or to a file of prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from instructgpt_fast.cli.sampling import Sampling
from instructgpt_fast.config import options_class
from instructgpt_fast.errors import ConfigError

if TYPE_CHECKING:
    from instructgpt_fast.generate import Completion, FewShot


@options_class()
class Generate(Sampling):
    """Which prompts, what is shown before them, and how the answers are found and printed."""

    prompt: str | None = None
    """The prompt; None reads --prompts, or else standard input, whose last line end is left out."""
    prompts: str | None = None
    """jsonl of {"prompt"} lines to answer; the answers are printed as jsonl."""
    examples: str | None = None
    """jsonl of {"prompt", "response"} lines shown to the model before every prompt."""
    instruction: str | None = None
    """What the examples are examples of, said before them."""
    n: int = 1
    """Answers to each prompt; with more than one, each is printed as a line of jsonl."""
    num_beams: int = 1
    """Answers searched side by side for the likeliest; more than one needs --temperature 0."""
    length_penalty: float = 1.0
    """Beams are compared by their log-probability over their length to this power."""
    batch_size: int = 32
    """Answers worked on at the same time."""
    stream: bool = False
    """Print the answer piece by piece as it is drawn."""
    details: bool = False
    """Print jsonl with the number of tokens, the sum of their log-probabilities in nats, and why the answer ended."""

    def check(self) -> None:
        """Refuse two sources of prompts, and what cannot be streamed."""
        super().check()
        self.require("give prompt or prompts, not both", self.prompt is None or self.prompts is None,
                     prompt=self.prompt, prompts=self.prompts)
        plain = self.prompts is None and self.n == 1 and self.num_beams == 1 and not self.details
        self.require("stream shows one answer as it is drawn: no prompts, n, num_beams or details beside it",
                     plain or not self.stream, prompts=self.prompts, n=self.n, num_beams=self.num_beams,
                     details=self.details)

    def few_shot(self) -> FewShot | None:
        """The examples and the instruction; None without either. Raises DataError with file and line."""
        from instructgpt_fast.data import Demonstration, read_jsonl
        from instructgpt_fast.generate import FewShot

        pairs: list[tuple[str, str]] = []
        if self.examples is not None:
            shown = read_jsonl(self.examples, Demonstration)
            for place, example in enumerate(shown):
                asked = example.prompt
                if not isinstance(asked, str):
                    if len(asked) != 1:
                        raise shown.error(
                            place, f"examples: an example is one question and its answer, got {len(asked)} messages "
                            "before the answer; shorten it"
                        )
                    asked = asked[0].content
                pairs.append((asked, example.response))
        return FewShot(pairs, instruction=self.instruction) if pairs or self.instruction is not None else None


def generate_text(options: Generate) -> None:
    """Print the answer to a prompt, or answers to a file of prompts as jsonl."""
    from instructgpt_fast.data import Prompt, read_jsonl
    from instructgpt_fast.generate import complete, stream

    few_shot = options.few_shot()
    prompts: list[Any]
    if options.prompts is not None:
        prompts = [item.prompt for item in read_jsonl(options.prompts, Prompt)]
    else:
        prompts = [sys.stdin.read().removesuffix("\n") if options.prompt is None else options.prompt]
        if not prompts[0].strip():
            raise ConfigError("generate: a prompt must not be empty, got none; pass --prompt TEXT.")
    loaded, sampling = options.load(), options.sampling()
    if options.stream:
        for piece in stream(loaded, prompts[0], examples=few_shot, **sampling):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    found = complete(loaded, prompts, examples=few_shot, n=options.n, batch_size=options.batch_size, **sampling)
    answers: Sequence[Sequence[Completion]] = found if options.n > 1 else [[answer] for answer in found]
    if options.prompts is None and options.n == 1 and not options.details:
        sys.stdout.write(f"{answers[0][0].text}\n")
        return
    for prompt, several in zip(prompts, answers, strict=True):
        for answer in several:
            sys.stdout.write(json.dumps(_record(prompt, answer, options.details), ensure_ascii=False) + "\n")


def _record(prompt: Any, answer: Completion, details: bool) -> dict[str, Any]:
    asked = prompt if isinstance(prompt, str) else [message._asdict() for message in prompt]
    record: dict[str, Any] = {"prompt": asked, "response": answer.text}
    if details:
        record["tokens"] = len(answer.tokens)
        record["logprob"] = round(sum(answer.logprobs), 6)
        record["finish_reason"] = answer.finish_reason
    return record
