"""One completion under way: what has been drawn, where its keys and values lie, and when it ends."""

from __future__ import annotations

from instructgpt_fast.generate.requests import Request
from instructgpt_fast.generate.sampling import Completion, FinishReason
from instructgpt_fast.generate.stop import StopText

NO_PENALTY = 1.0


class Row:
    """A completion of a request.

    tokens: the prompt and what has been drawn. stored: how many of them have their keys and values in `pages`.
    limit: how many tokens it may have at most. counted: whether its prompt is among those begun. followers: completions
    of the same prompt that begin where this one's prompt ends.
    """

    __slots__ = (
        "alternatives", "counted", "ends", "finish_reason", "followers", "index", "limit", "logprobs", "pages",
        "parameters", "penalised", "pieces", "prompt_length", "seed", "stop_text", "stored", "ticket", "tokens",
        "top_logprobs",
    )

    def __init__(
        self, ticket: int, index: int, request: Request, seed: int, limit: int, ends: frozenset[int],
        stop_text: StopText | None,
    ) -> None:
        sampling = request.sampling
        self.ticket, self.index, self.seed, self.limit, self.ends = ticket, index, seed, limit, ends
        self.tokens = list(request.prompt)
        self.prompt_length = len(self.tokens)
        self.top_logprobs = request.top_logprobs
        self.stop_text = stop_text
        self.parameters = (
            sampling.temperature, float(sampling.top_k), sampling.top_p, sampling.min_p, sampling.repetition_penalty)
        self.penalised = sampling.repetition_penalty != NO_PENALTY
        self.pages: list[int] = []
        self.stored = 0
        self.counted = False
        self.followers: list[Row] = []
        self.logprobs: list[float] = []
        self.alternatives: list[tuple[tuple[int, float], ...]] = []
        self.pieces: list[str] = []
        self.finish_reason: FinishReason | None = None

    @property
    def drawn(self) -> int:
        """How many tokens have been drawn."""
        return len(self.tokens) - self.prompt_length

    def take(self, token: int, logprob: float, alternatives: tuple[tuple[int, float], ...]) -> str:
        """Add a drawn token, set finish_reason if it is the last one, and return the text that may be shown now."""
        self.stored = len(self.tokens)
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if self.top_logprobs:
            self.alternatives.append(alternatives)
        text, stopped = "", False
        if self.stop_text is not None:
            text, stopped = self.stop_text.push(token)
        if token in self.ends:
            self.finish_reason = "eos"
        elif stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self.limit:
            self.finish_reason = "length"
        if self.stop_text is not None:
            if self.finish_reason is not None:
                text += self.stop_text.finish()
            self.pieces.append(text)
        return text

    def completion(self) -> Completion:
        """What has been drawn, once finish_reason is set."""
        assert self.finish_reason is not None
        return Completion(
            self.tokens[self.prompt_length :], self.logprobs, self.finish_reason, "".join(self.pieces),
            tuple(self.alternatives),
        )
