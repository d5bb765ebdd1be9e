"""The decoding engine: packed prefill, paged decode, rows that join when there is room and leave when finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from instructgpt_fast import ops
from instructgpt_fast.errors import ConfigError, DataError, TrainingError
from instructgpt_fast.generate.active import ActiveRows
from instructgpt_fast.generate.sampling import Completion, FinishReason, SamplingConfig, default_seeds
from instructgpt_fast.model import GPT, Decoder, KVCache

# Most prompt tokens run at once: bounds the memory of a prefill, and is enough to keep matrix products efficient.
PREFILL_TOKENS = 8192
# New prompts wait until this share of the rows is free, so that they are prefilled together.
REFILL_SHARE = 0.25
# On a GPU the host looks who has ended after every so many tokens: each look waits for all that is under way, and rows
# that have ended are worked on until then.
GPU_TOKENS_A_LOOK = 8


def sample(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    eos_id: int,
    seeds: Sequence[int] | None = None,
    batch_size: int = 32,
) -> list[Completion]:
    """Let the model complete each prompt once, without gradients and without dropout.

    A completion depends on its own prompt, seed and the sampling options, not on what else is in the batch. It ends
    with the end-of-text token, after max_new_tokens, or, unfinished, where the model's context is full.

    prompts: token ids, each with at least one token and shorter than the context.
    eos_id: id of the end-of-text token. seeds: one integer in [0, 2^63) a prompt; made from sampling.seed when None.
    batch_size: completions decoded at the same time; each needs keys and values for its own length.
    Raises DataError for a prompt that is empty or too long, ConfigError for bad options, and TrainingError when the
    model's logits are NaN.
    """
    engine = Engine(model, prompts, sampling, eos_id=eos_id, seeds=seeds, batch_size=batch_size)
    while engine.advance():
        pass
    return engine.completions()


class Engine:
    """One call of `sample`, a token for every active row at each `advance`."""

    def __init__(
        self,
        model: GPT,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        *,
        eos_id: int,
        seeds: Sequence[int] | None = None,
        batch_size: int = 32,
        tokens_a_look: int | None = None,
    ) -> None:
        """Check everything and allocate; arguments as for `sample`.

        tokens_a_look: after how many tokens rows that have ended are noticed; None for what suits the device. With more
        than one, `advance` may be True though all is done. Completions do not depend on it.
        """
        context = model.config.n_positions
        _check(prompts, seeds, batch_size, context)
        self.sampling, self.eos_id = sampling, eos_id
        weight = model.lm_weight
        self._device = weight.device
        self._tokens_a_look = tokens_a_look or (GPU_TOKENS_A_LOOK if self._device.type == "cuda" else 1)
        self._tokens_unseen = 0
        self._prompts = [list(prompt) for prompt in prompts]
        self._limits = [min(sampling.max_new_tokens, context - len(prompt)) for prompt in prompts]
        self._all_seeds = list(seeds) if seeds is not None else default_seeds(sampling.seed, len(prompts))
        self._waiting = deque(range(len(prompts)))
        self._rows = max(1, min(batch_size, len(prompts)))
        longest = max((len(p) + n for p, n in zip(self._prompts, self._limits, strict=True)), default=1)
        self._cache = KVCache(model.config, self._rows, longest, dtype=weight.dtype, device=self._device)
        self._decoder = Decoder(model, self._cache)
        self._logits = torch.empty(self._rows, model.config.vocab_size, device=self._device)
        self._history_width = longest if sampling.repetition_penalty != 1.0 else 0
        # Results lie flat, each prompt from its own offset on, so that a step writes all rows by one call.
        self._offsets = [0]
        for limit in self._limits:
            self._offsets.append(self._offsets[-1] + limit)
        # One place more, for what is drawn in rows that have ended.
        places = self._offsets[-1] + 1
        self._out_tokens = torch.empty(places, dtype=torch.int64, device=self._device)
        self._out_logprobs = torch.empty(places, dtype=torch.float32, device=self._device)
        self._counts = [0] * len(prompts)
        self._active: ActiveRows | None = None

    @torch.inference_mode()
    def advance(self) -> bool:
        """Draw one more token for every active row and let waiting prompts join; False when all is done."""
        active = self._active
        if active is not None:
            # A row that has ended may hold -1, which is no token.
            fed = active.tokens.clamp(min=0)
            hidden = self._decoder.step(fed, active.positions, active.block_table, active.lengths)
            going = ~active.done
            active.positions += going
            active.lengths += going
            self._draw(active, hidden)
            self._tokens_unseen += 1
            if self._tokens_unseen >= self._tokens_a_look:
                self._retire()
        # Again and again: a row can finish with the very token that its prefill draws.
        while self._waiting and (self._active is None or self._has_room()):
            self._admit()
        return bool(self._waiting) or self._active is not None

    def completions(self) -> list[Completion]:
        """Return what has been drawn so far, in the order of the prompts."""
        tokens, logprobs = self._out_tokens.tolist(), self._out_logprobs.tolist()
        found = []
        for offset, count in zip(self._offsets, self._counts, strict=False):
            drawn = tokens[offset : offset + count]
            reason: FinishReason = "eos" if drawn and drawn[-1] == self.eos_id else "length"
            found.append(Completion(drawn, logprobs[offset : offset + count], reason))
        return found

    def token(self, prompt: int, place: int) -> int:
        """Return token `place` of the completion of `prompt`, which must have been drawn."""
        return int(self._out_tokens[self._offsets[prompt] + place])

    def _draw(self, active: ActiveRows, hidden: Tensor) -> None:
        sampling = self.sampling
        logits = self._decoder.logits(hidden, out=self._logits[: hidden.shape[0]])
        tokens, logprobs = ops.sample_token(
            logits, active.seeds, active.positions, temperature=sampling.temperature, top_k=sampling.top_k,
            top_p=sampling.top_p, min_p=sampling.min_p, repetition_penalty=sampling.repetition_penalty,
            history=active.history,
        )
        places = torch.where(active.done, self._offsets[-1], active.cursors)
        self._out_tokens.index_copy_(0, places, tokens)
        self._out_logprobs.index_copy_(0, places, logprobs)
        tokens = torch.where(active.done, active.tokens, tokens)
        if active.history is not None:
            active.history.scatter_(1, active.positions[:, None], tokens[:, None])
        active.cursors += ~active.done
        active.tokens = tokens
        active.done |= (tokens == self.eos_id) | (active.cursors == active.ends) | (tokens < 0)

    def _retire(self) -> None:
        active = self._active
        assert active is not None
        self._tokens_unseen = 0
        done = active.done.tolist()
        if not any(done):
            return
        cursors, tokens = active.cursors.tolist(), active.tokens.tolist()
        for place in (place for place, ended in enumerate(done) if ended):
            prompt = active.prompts[place]
            self._counts[prompt] = cursors[place] - self._offsets[prompt]
            if tokens[place] < 0:
                raise TrainingError(
                    f"sample: the model's logits must be numbers, got NaN or infinity after "
                    f"{self._counts[prompt] - 1} tokens of completion {prompt}; the weights are broken, use another "
                    "checkpoint."
                )
            self._cache.free(active.rows[place])
        staying = [place for place, ended in enumerate(done) if not ended]
        self._active = active.select(torch.tensor(staying, device=self._device)) if staying else None

    def _has_room(self) -> bool:
        return self._cache.free_rows >= max(1, self._rows * REFILL_SHARE)

    def _admit(self) -> None:
        joining: list[int] = []
        total = 0
        while self._waiting and len(joining) < self._cache.free_rows:
            total += len(self._prompts[self._waiting[0]])
            if joining and total > PREFILL_TOKENS:
                break
            joining.append(self._waiting.popleft())
        prompts = [self._prompts[i] for i in joining]
        rows = [self._cache.claim(len(self._prompts[i]) + self._limits[i]) for i in joining]
        lengths = torch.tensor([0, *map(len, prompts)], dtype=torch.int32)
        cu_seqlens = lengths.cumsum(0, dtype=torch.int32).to(self._device)
        tokens = torch.tensor([t for prompt in prompts for t in prompt], dtype=torch.int64, device=self._device)
        row_ids = torch.tensor(rows, device=self._device)
        hidden = self._decoder.prefill(tokens, cu_seqlens, row_ids)
        new = ActiveRows(
            prompts=joining,
            rows=rows,
            tokens=torch.zeros_like(row_ids),
            done=torch.zeros_like(row_ids, dtype=torch.bool),
            positions=lengths[1:].to(self._device, torch.int64),
            lengths=lengths[1:].to(self._device),
            block_table=self._cache.block_table[row_ids],
            seeds=torch.tensor([self._all_seeds[i] for i in joining], dtype=torch.int64, device=self._device),
            cursors=torch.tensor([self._offsets[i] for i in joining], device=self._device),
            ends=torch.tensor([self._offsets[i + 1] for i in joining], device=self._device),
            history=self._history_of(prompts),
        )
        self._draw(new, hidden.index_select(0, cu_seqlens[1:].long() - 1))
        self._active = new if self._active is None else self._active.join(new)
        self._retire()

    def _history_of(self, prompts: list[list[int]]) -> Tensor | None:
        if not self._history_width:
            return None
        padded = [prompt + [-1] * (self._history_width - len(prompt)) for prompt in prompts]
        return torch.tensor(padded, dtype=torch.int64, device=self._device)


def _check(prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None, batch_size: int, context: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"sample: batch_size must be at least 1, got {batch_size}; correct the option.")
    if seeds is not None and len(seeds) != len(prompts):
        raise ConfigError(f"sample: there must be one seed a prompt, got {len(seeds)} for {len(prompts)} prompts.")
    if seeds is not None and any(not 0 <= seed < 2**63 for seed in seeds):
        raise ConfigError("sample: seeds must be in [0, 2^63), got one outside; take them modulo 2^63.")
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"sample: a prompt must have at least one token, got none in prompt {i}; leave it out.")
        if len(prompt) >= context:
            raise DataError(
                f"sample: a prompt must be shorter than the context of {context} tokens, got {len(prompt)} in prompt "
                f"{i}; shorten it or use a model with more positions."
            )
