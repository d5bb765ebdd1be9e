"""The decoding engine: requests join, share what they have in common, and leave, a token for each at every step.

Keys and values lie in pages (Kwon et al. 2023, arXiv:2309.06180), requests join between any two steps (Yu et al. 2022,
Orca, OSDI), and long prompts are run in chunks between steps (Agrawal et al. 2023, arXiv:2308.16369).
Not covered: beam search (generate/beam.py); several threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.pages import PagePool
from instructgpt_fast.generate.prefixes import PrefixTree
from instructgpt_fast.generate.requests import Drawn, Request, check_prompt, check_seeds
from instructgpt_fast.generate.row import Row
from instructgpt_fast.generate.sampling import Completion, FinishReason, SamplingConfig, default_seeds
from instructgpt_fast.generate.schedule import Schedule
from instructgpt_fast.generate.steps import Steps
from instructgpt_fast.generate.stop import StopText
from instructgpt_fast.model import GPT, PAGE_SIZE, Decoder, KVCache
from instructgpt_fast.tokenizer import Tokenizer

__all__ = ["Engine", "EngineStats", "sample"]

# Most prompt tokens run between two steps: enough to keep matrix products efficient, few enough that those who wait for
# their next token hardly notice.
PREFILL_TOKENS = {"cpu": 512, "cuda": 4096}
# On a GPU the host looks at what was drawn after every so many tokens: each look waits for all that is under way, and
# rows that have ended are worked on until then.
TOKENS_A_LOOK = {"cpu": 1, "cuda": 8}
# New requests wait until this share of the rows is free, so that on a GPU they are prefilled together. On the CPU a
# handful of prompt tokens is as dear alone as among others.
REFILL_SHARE = {"cpu": 0.0, "cuda": 0.25}


@dataclass(frozen=True)
class EngineStats:
    """What an engine is doing, and what it has done since it was made.

    waiting, prefilling, active: completions. rows: most that run at a time. pages, free_pages, cached_pages: of the
    cache; those free, and those kept because a later request may begin with the same tokens (they give way when room
    is needed). preempted: how often a completion had to wait again. prompt_tokens: of the completions begun;
    shared_prompt_tokens: those among them that had been computed before. drawn_tokens: of all completions.
    """

    waiting: int
    prefilling: int
    active: int
    rows: int
    pages: int
    free_pages: int
    cached_pages: int
    preempted: int
    prompt_tokens: int
    shared_prompt_tokens: int
    drawn_tokens: int


class _Event(NamedTuple):
    row: Row
    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]
    text: str
    finish_reason: FinishReason | None


class Engine:
    """Completes requests with one model, whose weights it shares; without gradients and without dropout.

    A completion depends on its prompt, its seed and its sampling options. On the CPU its tokens and log-probabilities
    have the same bits whatever runs beside it, however its prompt is cut into chunks, and whether or not parts of it
    were found in the cache. On a GPU linear layers of a step have them too, but prefill, and attention, which cuts a
    row's positions into shares by how many rows there are, round by their company: now and then a draw near a tie
    flips. Not thread-safe: one thread calls an engine.
    """

    def __init__(
        self,
        model: GPT,
        *,
        eos_id: int,
        tokenizer: Tokenizer | None = None,
        max_rows: int = 32,
        cache_tokens: int | None = None,
        prefill_tokens: int | None = None,
        share_prefixes: bool = True,
        tokens_a_look: int | None = None,
    ) -> None:
        """Allocate the cache and everything else that steps need.

        eos_id: id of the end-of-text token. tokenizer: needed for text and stop strings. max_rows: completions that run
        at a time. cache_tokens: room for keys and values in tokens, all completions together (2 * n_layer * d_model
        numbers each); None for max_rows whole contexts. prefill_tokens: most prompt tokens run between two steps.
        share_prefixes: whether equal beginnings of prompts are stored once and kept. tokens_a_look: tokens drawn for
        each row in a step before the host looks at them; completions do not depend on it. None for both: what suits the
        device.
        """
        weight = model.lm_weight
        device = weight.device
        context = model.config.n_positions
        given = {"max_rows": max_rows, "cache_tokens": cache_tokens, "prefill_tokens": prefill_tokens,
                 "tokens_a_look": tokens_a_look}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"engine: {name} must be at least 1, got {value}; correct the option.")
        if tokenizer is not None and tokenizer.vocab_size != model.config.vocab_size:
            raise ConfigError(
                f"engine: the tokenizer must be the model's, got {tokenizer.vocab_size} tokens for a vocabulary of "
                f"{model.config.vocab_size}; pass the one that the model was trained with."
            )
        self.eos_id, self.tokenizer, self.model = eos_id, tokenizer, model
        self._rows = max_rows
        self._prefill_tokens = prefill_tokens or PREFILL_TOKENS[device.type]
        self._tokens_a_look = tokens_a_look or TOKENS_A_LOOK[device.type]
        room = max_rows * context if cache_tokens is None else cache_tokens
        self._cache = KVCache(model.config, -(-room // PAGE_SIZE), dtype=weight.dtype, device=device)
        self._pool = PagePool(self._cache)
        self._tree = PrefixTree(self._pool, self._cache.page_size) if share_prefixes else None
        active = ActiveRows(max_rows, self._cache.pages_for(context), context, device)
        self._schedule = Schedule(
            self._pool, self._cache.page_size, self._tree, active, max_rows, REFILL_SHARE[device.type]
        )
        self._active = active
        self._decoder = Decoder(model, self._cache)
        self._steps = Steps(self._decoder, active, max_rows, self._tokens_a_look)
        self._tickets = 0
        self._drawn_tokens = 0

    @property
    def busy(self) -> bool:
        """Whether a request is not finished."""
        return bool(self._schedule.waiting or self._schedule.prefilling or self._active.rows)

    def submit(self, request: Request) -> int:
        """Take a request in and return its ticket; its completions begin at the next steps.

        Raises DataError for a prompt that is empty, longer than the context or the cache, or has an unknown id, and
        ConfigError for options that this engine does not serve.
        """
        return self._submit(request)[0].ticket

    def cancel(self, ticket: int) -> None:
        """Drop a request and free its rows and pages at once; a ticket that is finished or unknown is ignored."""
        self._schedule.cancel(ticket)

    def step(self) -> list[Drawn]:
        """Take waiting requests in, run a chunk of their prompts, and draw the next tokens of every active completion.

        Returns what was drawn; tokens of one completion stand in their order.
        Raises TrainingError when the model's logits are NaN. After that, or when it was interrupted or failed in any
        other way, the engine has dropped all requests.
        """
        return [Drawn(event.row.ticket, event.row.index, *event[1:]) for event in self._round()]

    def run(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Complete all requests; returns the completions of each.

        Raises as `submit`, `step`, and ConfigError while other requests are under way.
        """
        self._check_idle("run")
        rows: list[list[Row]] = []
        try:
            for request in requests:
                rows.append(self._submit(request))
            while self.busy:
                self._round()
        finally:
            self._schedule.cancel(None)
        return [[row.completion() for row in of_request] for of_request in rows]

    def weights_changed(self) -> None:
        """Forget what was computed with the old weights; call it when the model's weights have been changed.

        Raises ConfigError while requests are under way.
        """
        self._check_idle("weights_changed")
        if self._tree is not None:
            self._tree.clear()
        if not self._decoder.is_bound_to(self.model):
            self._decoder = Decoder(self.model, self._cache)
            self._steps = Steps(self._decoder, self._active, self._rows, self._tokens_a_look)

    def stats(self) -> EngineStats:
        """Return the counts of this moment."""
        schedule = self._schedule
        followers = sum(len(row.followers) for row in schedule.prefilling)
        return EngineStats(
            waiting=len(schedule.waiting), prefilling=len(schedule.prefilling) + followers, active=len(self._active),
            rows=self._rows, pages=self._cache.pages, free_pages=self._pool.free, cached_pages=self._pool.kept,
            preempted=schedule.preempted, prompt_tokens=schedule.prompt_tokens,
            shared_prompt_tokens=schedule.shared_prompt_tokens, drawn_tokens=self._drawn_tokens,
        )

    def _submit(self, request: Request) -> list[Row]:
        sampling, context = request.sampling, self.model.config.n_positions
        check_prompt("engine", request.prompt, self.model.config, "the prompt")
        limit = min(len(request.prompt) + sampling.max_new_tokens, context)
        room = self._cache.pages * self._cache.page_size
        if limit > room:
            raise DataError(
                f"engine: a prompt and its completion must fit the cache of {room} tokens, got {len(request.prompt)} "
                f"and up to {limit - len(request.prompt)}; ask for fewer tokens or make the cache larger."
            )
        if sampling.num_beams != 1:
            raise ConfigError(
                f"engine: tokens are drawn, not searched, so num_beams must be 1, got {sampling.num_beams}; use "
                "generate() for beam search."
            )
        if sampling.stop and self.tokenizer is None:
            raise ConfigError("engine: stop strings need a tokenizer, got none; make the engine with one.")
        if request.count < 1 or request.top_logprobs < 0:
            raise ConfigError(
                f"engine: count must be at least 1 and top_logprobs at least 0, got {request.count} and "
                f"{request.top_logprobs}; correct the request."
            )
        seeds = default_seeds(sampling.seed, request.count) if request.seeds is None else list(request.seeds)
        check_seeds("engine", seeds, request.count, "completion")
        ticket, self._tickets = self._tickets, self._tickets + 1
        ends = frozenset((self.eos_id, *sampling.stop_ids))
        rows = [
            Row(ticket, index, request, seed, limit, ends, self._text(sampling)) for index, seed in enumerate(seeds)
        ]
        self._schedule.waiting.extend(rows)
        return rows

    def _text(self, sampling: SamplingConfig) -> StopText | None:
        if self.tokenizer is None:
            return None
        return StopText(self.tokenizer, sampling.stop, sampling.stop_ids)

    @torch.inference_mode()
    def _round(self) -> list[_Event]:
        try:
            self._schedule.admit()
            self._schedule.prefill(self._prefill_tokens, self._decoder.store)
            self._schedule.begin()
            return self._decode() if self._active.rows else []
        except BaseException:
            # Rows may have moved on in the device's memory and not in the host's: nobody can go on with them.
            self._schedule.cancel(None)
            if self._tree is not None:
                self._tree.clear()
            raise

    def _decode(self) -> list[_Event]:
        rows = self._active.rows
        steps = self._tokens_a_look
        if steps > 1:
            steps = min(steps, min(row.limit - len(row.tokens) for row in rows))
            if any(row.top_logprobs for row in rows):
                steps = 1  # the logits of a step are gone after the next
        self._schedule.grow(steps)
        if not rows:
            return []
        self._active.upload()
        return self._take(*self._steps.decode(len(rows), steps))

    def _take(self, tokens: np.ndarray, logprobs: np.ndarray) -> list[_Event]:
        """Give the rows what was drawn for them, both [steps, rows]; those that end leave."""
        rows = self._active.rows
        events: list[_Event] = []
        for line, numbers in zip(tokens.tolist(), logprobs.tolist(), strict=True):
            for slot, (row, token, logprob) in enumerate(zip(rows, line, numbers, strict=True)):
                if row.finish_reason is not None:
                    continue
                if token < 0:
                    raise TrainingError(
                        f"engine: the model's logits must be numbers, got NaN or infinity after {row.drawn} tokens of "
                        f"completion {row.index} of request {row.ticket}; the weights are broken, use another "
                        "checkpoint."
                    )
                found = self._steps.alternatives(slot, row, token, logprob) if row.top_logprobs else ()
                text = row.take(token, logprob, found)
                events.append(_Event(row, token, logprob, found, text, row.finish_reason))
        self._drawn_tokens += len(events)
        self._active.advanced(tokens[-1], len(tokens))
        for slot in reversed(range(len(rows))):
            if rows[slot].finish_reason is not None:
                self._schedule.finish(slot)
        return events

    def _check_idle(self, caller: str) -> None:
        if self.busy:
            raise ConfigError(
                f"engine: {caller} needs an engine without requests under way, got {self.stats().active} active; "
                "finish or cancel them first."
            )


def sample(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    eos_id: int,
    seeds: Sequence[int] | None = None,
    batch_size: int = 32,
    tokenizer: Tokenizer | None = None,
    top_logprobs: int = 0,
    engine: Engine | None = None,
) -> list[Completion]:
    """Let the model complete each prompt once, without gradients and without dropout.

    A completion depends on its own prompt, seed and the sampling options, not on what else is in the batch. It ends
    with the end-of-text token, one of stop_ids or a stop string, after max_new_tokens, or where the context is full.

    prompts: token ids, each with at least one token and shorter than the context.
    eos_id: id of the end-of-text token. seeds: one integer in [0, 2^63) a prompt; made from sampling.seed when None.
    batch_size: completions decoded at the same time; each needs keys and values for its own length.
    tokenizer: needed for stop strings, and gives the completions their text. top_logprobs: likeliest tokens told
    beside each drawn one. engine: an idle one of this model and eos_id, used instead of a new one; batch_size and
    tokenizer are then its own.
    Raises DataError for a prompt that is empty or too long, ConfigError for bad options, and TrainingError when the
    model's logits are NaN.
    """
    if batch_size < 1:
        raise ConfigError(f"sample: batch_size must be at least 1, got {batch_size}; correct the option.")
    seeds = default_seeds(sampling.seed, len(prompts)) if seeds is None else list(seeds)
    check_seeds("sample", seeds, len(prompts), "prompt")
    for i, prompt in enumerate(prompts):
        check_prompt("sample", prompt, model.config, f"prompt {i}")
    if not prompts:
        return []
    if engine is None:
        context = model.config.n_positions
        rows = min(batch_size, len(prompts))
        longest = max(min(len(prompt) + sampling.max_new_tokens, context) for prompt in prompts)
        engine = Engine(
            model, eos_id=eos_id, tokenizer=tokenizer, max_rows=rows,
            cache_tokens=rows * -(-longest // PAGE_SIZE) * PAGE_SIZE,
        )
    elif engine.model is not model or engine.eos_id != eos_id:
        raise ConfigError(
            f"sample: the engine must be of the same model and eos_id, got one with eos_id {engine.eos_id} for "
            f"{eos_id}{'' if engine.model is model else ', of another model'}; make an engine for this call."
        )
    requests, begin = [], 0
    # Neighbours with one prompt become one request, whose prompt is run once.
    for prompt, group in itertools.groupby(prompts, key=list):
        end = begin + len(list(group))
        requests.append(Request(prompt, sampling, end - begin, seeds[begin:end], top_logprobs))
        begin = end
    return list(itertools.chain.from_iterable(engine.run(requests)))

