"""Beam search: the likeliest completions of a prompt, several followed side by side over the paged cache.

A completion y of |y| tokens, the one that ends it included, scores log P(y | prompt) / |y|^length_penalty. Wu et al.
2016, arXiv:1609.08144, eq. 14, divide by ((5 + |y|) / 6)^alpha, which weakens the penalty among short completions; ours
is the plain power that users of transformers and vLLM know under this name. 0 compares bare log-probabilities, 1 means
per token, above 1 prefers long completions.

The search of a prompt ends when num_beams completions have ended and the best one still open, scored at its present
length, is no better than the worst of these: transformers' early_stopping=False. With a positive length_penalty that
is a rule of thumb: a completion might still have risen above it with more tokens.

Not covered: sharing of pages between prompts; draws within beams.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from instructgpt_fast.errors import ConfigError, TrainingError
from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.generate.requests import check_prompt
from instructgpt_fast.generate.sampling import Completion, FinishReason, SamplingConfig
from instructgpt_fast.generate.stop import StopText
from instructgpt_fast.model import GPT, PAGE_SIZE, Chunk, Decoder, KVCache
from instructgpt_fast.tokenizer import Tokenizer

__all__ = ["beam_search"]


@torch.inference_mode()
def beam_search(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    eos_id: int,
    tokenizer: Tokenizer | None = None,
    count: int = 1,
    batch_size: int = 32,
) -> list[list[Completion]]:
    """Return the `count` best of the completions that each prompt's search kept, the best first.

    prompts: token ids, each with at least one token and shorter than the context. sampling: num_beams, length_penalty,
    max_new_tokens, stop and stop_ids; with num_beams=1 the search is greedy decoding. tokenizer: for text and stop
    strings. batch_size: beams of all prompts followed at the same time, at least those of one prompt.
    A completion's log-probabilities are those of the model, at temperature 1. Fewer than `count` come back only where
    the vocabulary has too few tokens.
    Raises ConfigError for options that a search cannot use, DataError for a prompt that cannot be served, and
    TrainingError when the model's logits are NaN.
    """
    sampling.check_search()
    if not 1 <= count <= sampling.num_beams:
        raise ConfigError(
            f"beam_search: n must be in 1..num_beams, got n={count} and num_beams={sampling.num_beams}; ask for more "
            "beams."
        )
    if sampling.stop and tokenizer is None:
        raise ConfigError(f"beam_search: stop strings need a tokenizer, got stop={sampling.stop!r} without one.")
    if batch_size < 1:
        raise ConfigError(f"beam_search: batch_size must be at least 1, got {batch_size}; correct the option.")
    for place, prompt in enumerate(prompts):
        check_prompt("beam_search", prompt, model.config, f"prompt {place}")
    if not prompts:
        return []
    rules = _Rules(sampling, frozenset({eos_id, *sampling.stop_ids}), tokenizer)
    searches = [
        _Search(rules, list(prompt), min(sampling.max_new_tokens, model.config.n_positions - len(prompt)))
        for prompt in prompts
    ]
    _Pass(model, searches, max(1, batch_size // sampling.num_beams)).run()
    return [[ended.completion(rules) for ended in search.ended[:count]] for search in searches]


@dataclass(frozen=True)
class _Rules:
    """What all searches of a call share: the options, the tokens that end a text, and how tokens become text."""

    sampling: SamplingConfig
    ending: frozenset[int]
    tokenizer: Tokenizer | None

    @property
    def beams(self) -> int:
        return self.sampling.num_beams

    @property
    def candidates(self) -> int:
        """Continuations looked at: enough that after all endings among them as many open ones are left as beams."""
        return max(2, 1 + len(self.ending)) * self.beams

    def text(self) -> StopText | None:
        """The reader of a completion's text, None where no stop string asks for one."""
        if self.tokenizer is None or not self.sampling.stop:
            return None
        return StopText(self.tokenizer, self.sampling.stop, self.sampling.stop_ids)


class _Candidate(NamedTuple):
    """A continuation: log-probability of the whole completion, the beam it continues, its token and that one's."""

    total: float
    parent: int
    token: int
    logprob: float


@dataclass
class _Beam:
    """An open completion. pages: hold the prompt and all tokens but the last one."""

    tokens: list[int]
    logprobs: list[float]
    total: float
    pages: list[int]
    text: StopText | None


@dataclass(frozen=True)
class _Ended:
    """A completion that has ended, and its score."""

    score: float
    tokens: list[int]
    logprobs: list[float]
    reason: FinishReason

    def completion(self, rules: _Rules) -> Completion:
        """With its text, when there is a tokenizer."""
        text = ""
        if rules.tokenizer is not None:
            reader = StopText(rules.tokenizer, rules.sampling.stop, rules.sampling.stop_ids)
            text = "".join([reader.push(token)[0] for token in self.tokens]) + reader.finish()
        return Completion(self.tokens, self.logprobs, self.reason, text)


@dataclass
class _Search:
    """One prompt's search. limit: most tokens of a completion. ended: the best so far, best first, as many as beams."""

    rules: _Rules
    prompt: list[int]
    limit: int
    open: list[_Beam] = field(default_factory=list)
    ended: list[_Ended] = field(default_factory=list)

    def advance(self, found: list[_Candidate]) -> list[tuple[_Candidate, StopText | None]]:
        """Take the best continuations, the best first; end those that end and return those to go on with.

        None are returned when the search is over. Only the best num_beams continuations may end: the rest are there to
        go on with in their place.
        """
        going: list[tuple[_Candidate, StopText | None]] = []
        length = len(self.open[0].tokens) + 1
        scale = length**self.rules.sampling.length_penalty
        for rank, candidate in enumerate(found):
            parent = self.open[candidate.parent]
            text = None if parent.text is None else parent.text.fork()
            reason = self._ends(candidate.token, length, text)
            if reason is None:
                going.append((candidate, text))
            elif rank < self.rules.beams:
                tokens, logprobs = [*parent.tokens, candidate.token], [*parent.logprobs, candidate.logprob]
                self.ended.append(_Ended(candidate.total / scale, tokens, logprobs, reason))
        # Stable: of equal scores the one that ended first stays in front.
        self.ended = sorted(self.ended, key=lambda each: -each.score)[: self.rules.beams]
        going = going[: self.rules.beams]
        full = len(self.ended) == self.rules.beams
        if going and full and going[0][0].total / scale <= self.ended[-1].score:
            return []
        return going

    def _ends(self, token: int, length: int, text: StopText | None) -> FinishReason | None:
        if token in self.rules.ending:
            return "eos"
        if text is not None and text.push(token)[1]:
            return "stop"
        return "length" if length == self.limit else None


class _Pass:
    """The searches of one call, as many at a time as there is room for; a waiting one takes the place of a finished."""

    def __init__(self, model: GPT, searches: Sequence[_Search], at_once: int) -> None:
        weight = model.lm_weight
        self._device = weight.device
        self._waiting = deque(searches)
        self._active: list[_Search] = []
        self._at_once = min(at_once, len(searches))
        pages = self._at_once * max(_pages_needed(search, PAGE_SIZE) for search in searches)
        self._cache = KVCache(model.config, pages, dtype=weight.dtype, device=self._device)
        self._pool = PagePool(self._cache)
        self._decoder = Decoder(model, self._cache)

    def run(self) -> None:
        """Go on until every search is over."""
        while self._waiting or self._active:
            while self._waiting and len(self._active) < self._at_once:
                self._begin(self._waiting.popleft())
            self._step()

    def _begin(self, search: _Search) -> None:
        pages = self._pool.claim(self._cache.pages_for(len(search.prompt)))
        search.open = [_Beam([], [], 0.0, pages, search.rules.text())]
        if len(search.prompt) > 1:
            self._decoder.store([Chunk(search.prompt[:-1], 0, pages)])
        self._active.append(search)

    def _step(self) -> None:
        rows = [(search, beam) for search in self._active for beam in search.open]
        widest = max(len(beam.pages) for _, beam in rows)
        places = [len(search.prompt) + len(beam.tokens) - 1 for search, beam in rows]
        table = [[*beam.pages, *[-1] * (widest - len(beam.pages))] for _, beam in rows]
        # The first step of a search runs the last token of its prompt.
        last = [(beam.tokens or search.prompt)[-1] for search, beam in rows]
        tokens, positions = torch.tensor([last, places]).to(self._device).unbind(0)
        block_table = torch.tensor(table, dtype=torch.int32).to(self._device)
        self._choose(rows, self._decoder.step(tokens, positions, block_table, positions.int()))

    def _choose(self, rows: Sequence[tuple[_Search, _Beam]], hidden: Tensor) -> None:
        """Continue the beams of all searches, given their hidden states [B, D]."""
        totals = torch.tensor([beam.total for _, beam in rows], device=self._device)
        logprobs = torch.log_softmax(self._decoder.logits(hidden), dim=-1)
        wanted = min(rows[0][0].rules.candidates, logprobs.shape[-1])
        best = (logprobs + totals[:, None]).topk(wanted, dim=-1)
        found = best.values.tolist(), best.indices.tolist(), logprobs.gather(1, best.indices).tolist()
        row = 0
        for search in list(self._active):
            candidates = []
            for parent in range(len(search.open)):
                candidates += [_Candidate(t, parent, i, p) for t, i, p in zip(*(x[row] for x in found), strict=True)]
                row += 1
            if any(math.isnan(candidate.total) for candidate in candidates):
                raise TrainingError(
                    f"beam_search: the model's logits must be numbers, got NaN after {len(search.open[0].tokens)} "
                    "tokens; the weights are broken, use another checkpoint."
                )
            candidates = [candidate for candidate in candidates if candidate.total > -math.inf]
            candidates.sort(key=lambda candidate: -candidate.total)
            self._follow(search, search.advance(candidates[: search.rules.candidates]))

    def _follow(self, search: _Search, going: list[tuple[_Candidate, StopText | None]]) -> None:
        """Make `going` the open beams: the first child of a beam takes its pages over, the others fork them."""
        parents, cached = search.open, len(search.prompt) + len(search.open[0].tokens)
        chosen = {candidate.parent for candidate, _ in going}
        for place, parent in enumerate(parents):
            if place not in chosen:
                self._pool.release(parent.pages)
        first = {candidate.parent: place for place, (candidate, _) in reversed(list(enumerate(going)))}
        later = [c.parent for place, (c, _) in enumerate(going) if first[c.parent] != place]
        forked = iter(self._pool.fork([(parents[parent].pages, cached) for parent in later]))
        search.open = []
        for place, (candidate, text) in enumerate(going):
            parent = parents[candidate.parent]
            pages = parent.pages if first[candidate.parent] == place else next(forked)
            search.open.append(_Beam(
                [*parent.tokens, candidate.token], [*parent.logprobs, candidate.logprob], candidate.total, pages, text
            ))
        if self._cache.pages_for(cached + 1) > self._cache.pages_for(cached):
            for beam in search.open:
                beam.pages += self._pool.claim(1)
        if not going:
            self._active.remove(search)


def _pages_needed(search: _Search, page_size: int) -> int:
    """Most pages that a search can hold: its prompt's full ones shared, all others by each beam alone."""
    shared, whole = len(search.prompt) // page_size, -(-(len(search.prompt) + search.limit) // page_size)
    return shared + search.rules.beams * (whole - shared)
