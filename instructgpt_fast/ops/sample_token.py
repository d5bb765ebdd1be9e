"""Draws the next token of each row from its logits: penalty, temperature, top-k, top-p, min-p and a counter-based race.

Not covered: gradients, beam search, masks over the vocabulary (put -inf into the logits: such a token is never drawn).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from instructgpt_fast.ops import _checks, _library
from instructgpt_fast.ops._philox import SAMPLING_USE, key_of, philox

_forward = torch.ops.instructgpt_fast.sample_token

Number = float | int | Tensor


def sample_token(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    temperature: Number = 1.0,
    top_k: Number = 0,
    top_p: Number = 1.0,
    min_p: Number = 0.0,
    repetition_penalty: Number = 1.0,
    history: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws one token a row from softmax(logits / temperature), cut down to its likely tokens.

    In this order, which is that of transformers' generate():
      1. repetition penalty: s = s / r if s > 0 else s * r, once for each token in the row's history (Keskar et al.
         2019, arXiv:1909.05858, section 4.1, with the sign rule that keeps r > 1 a penalty);
      2. temperature: s / temperature;
      3. top-k: keep s >= the k-th largest s (Fan et al. 2018, arXiv:1805.04833);
      4. top-p: keep a token while the mass above it is below top_p of the mass kept so far, so at least the best one
         (Holtzman et al. 2020, arXiv:1904.09751, section 3.1);
      5. min-p: keep p >= min_p * the largest p (Nguyen et al. 2024, arXiv:2407.01082).
    Tokens tied with the last one kept are kept too, in 3 and in 4.

    The draw is an exponential race, argmax of p_v / E_v over the kept tokens with E_v = -log(1 - u_v). u_v comes from
    Philox4x32-10 keyed by the row's seed at the counter (position, token): the draw depends on the row's own logits,
    seed, position and parameters, and on nothing else. Equal results go to the lowest token.

    A row gives token -1 and logprob NaN when it has no meaning: NaN or +inf among its logits, no finite logit, a
    history token >= V, or (given as a tensor) a parameter outside its range. Nothing is raised for a row, because on a
    GPU that would wait for the device; the caller looks for -1 when it next reads the tokens.

    Args:
        logits: [B, V] float32, bfloat16 or float16; computed in float32.
        seeds: [B] int64, one a row.
        positions: [B] int64, where in its sequence the row's token will stand; a new one for each draw.
        temperature: >= 0; 0 takes the most likely token (the lowest of equal ones).
        top_k: >= 0; 0 or >= V keeps all.
        top_p: in [0, 1]; 1 keeps all.
        min_p: in [0, 1]; 0 keeps all.
        repetition_penalty: above 0; 1 changes nothing.
        history: [B, L] int64, the tokens that the penalty applies to, padded with -1; None for none.
        Each parameter is a number or a tensor [B] with one value a row.

    Returns:
        tokens [B] int64, and logprobs [B] float32: the log-softmax after steps 1 and 2 at the drawn token, so that it
        equals what training computes at this temperature; a row with temperature 0 takes it at temperature 1.

    Raises:
        TypeError: for a dtype that is not served. BackendError: for a device without a kernel.
        ValueError: for shapes that do not fit, a number outside its range, or logits that require a gradient.
    """
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
               "repetition_penalty": repetition_penalty}
    _check(logits, seeds, positions, history, numbers)
    tokens, logprobs = _forward(logits, seeds, positions, _stack(numbers, logits), history)
    return tokens, logprobs


def sample_token_oracle(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    *,
    temperature: Number = 1.0,
    top_k: Number = 0,
    top_p: Number = 1.0,
    min_p: Number = 0.0,
    repetition_penalty: Number = 1.0,
    history: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch by sorting whole rows, in the dtype of the logits; the race itself is in float64."""
    B, V = logits.shape
    values = [torch.as_tensor(n, device=logits.device).double().expand(B) for n in (
        temperature, top_k, top_p, min_p, repetition_penalty)]
    valid = _rows_with_meaning(logits, history, *values)
    heat, k, p, floor, penalty = (value[:, None] for value in values)
    scores = _penalised(torch.where(valid[:, None], logits, torch.zeros_like(logits)), penalty, history)
    greedy = heat == 0
    scores = scores / torch.where(greedy | ~valid[:, None], 1.0, heat).to(scores.dtype)
    all_logprobs = torch.log_softmax(scores, dim=-1)
    kept = _kept(scores, k, p, floor)
    weight = torch.where(kept, torch.softmax(scores.double(), dim=-1), 0.0)
    race = torch.where(greedy, scores.double(), weight / _exponentials(seeds, positions, V))
    columns = torch.arange(V, device=logits.device)
    tokens = torch.where(race == race.amax(-1, keepdim=True), columns, V).amin(-1)
    logprobs = all_logprobs.gather(1, tokens[:, None])[:, 0]
    return torch.where(valid, tokens, -1), torch.where(valid, logprobs, math.nan)


def _kept(scores: Tensor, k: Tensor, p: Tensor, floor: Tensor) -> Tensor:
    """Which tokens steps 3 to 5 keep: [B, V] bool."""
    V = scores.shape[1]
    ordered = scores.sort(dim=-1, descending=True).values
    kth = ordered.gather(1, torch.where(k > 0, k.clamp(max=V), V).long() - 1)
    kept = scores >= kth
    # Sorting back the survivors: the mass above a token is what precedes the first of its equals.
    weights = torch.softmax(torch.where(kept, scores, -math.inf), dim=-1)
    falling = weights.sort(dim=-1, descending=True).values
    before = falling.cumsum(-1) - falling
    first_equal = torch.searchsorted(-falling, -weights)
    kept &= (before.gather(1, first_equal) < p) | (first_equal == 0) | (p >= 1)
    weights = torch.where(kept, weights, 0)
    return kept & (weights >= floor * weights.amax(-1, keepdim=True))


def _penalised(scores: Tensor, penalty: Tensor, history: Tensor | None) -> Tensor:
    if history is None or history.shape[1] == 0:
        return scores
    # One more column takes what the padding would write.
    seen = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
    inside = (history >= 0) & (history < scores.shape[1])
    seen.scatter_(1, torch.where(inside, history, scores.shape[1]), True)
    penalty = penalty.to(scores.dtype)
    return torch.where(seen[:, :-1], torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def _rows_with_meaning(
    logits: Tensor, history: Tensor | None, heat: Tensor, k: Tensor, p: Tensor, floor: Tensor, penalty: Tensor
) -> Tensor:
    largest = logits.amax(-1)  # NaN when there is one
    good = largest.isfinite() & (heat >= 0) & heat.isfinite() & (k >= 0) & (p >= 0) & (p <= 1)
    good = good & (floor >= 0) & (floor <= 1) & (penalty > 0) & penalty.isfinite()
    return good if history is None else good & (history < logits.shape[1]).all(-1)


def _exponentials(seeds: Tensor, positions: Tensor, vocab: int) -> Tensor:
    """-log(1 - u) for each row and token: [B, V] float64; the layout of the counter is that of sample_token.h."""
    low = 0xFFFFFFFF
    token = torch.arange(vocab, device=seeds.device)
    c0 = ((token // 64) * 16 + token % 16).expand(seeds.shape[0], vocab)
    c1, c2 = (positions & low)[:, None].expand_as(c0), ((positions >> 32) & low)[:, None].expand_as(c0)
    key_low, key_high = key_of(seeds)
    words = torch.stack(
        philox((c0, c1, c2, torch.full_like(c0, SAMPLING_USE)), (key_low[:, None], key_high[:, None]))
    )
    word = words.gather(0, ((token // 16) % 4).expand_as(c0)[None])[0]
    return -torch.log1p(-(word.double() + 0.5) * 2.0**-32)


_RULES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "temperature": ("finite and >= 0", lambda value: value >= 0),
    "top_k": ("finite and >= 0", lambda value: value >= 0),
    "top_p": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "min_p": ("in [0, 1]", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("finite and above 0", lambda value: value > 0),
}


def _check(
    logits: Tensor, seeds: Tensor, positions: Tensor, history: Tensor | None, numbers: dict[str, Number]
) -> None:
    _checks.check_tensor("sample_token", "logits", logits, dtypes=_checks.FLOATS, dim=2)
    rows = logits.shape[0]
    if logits.shape[1] == 0:
        raise ValueError(f"sample_token: logits must have at least one token, got shape {tuple(logits.shape)}")
    for name, vector in (("seeds", seeds), ("positions", positions)):
        _checks.check_tensor("sample_token", name, vector, dtypes=(torch.int64,))
        _checks.check_shape("sample_token", name, vector, (rows,), "[B] of logits")
    if history is not None:
        _checks.check_tensor("sample_token", "history", history, dtypes=(torch.int64,), dim=2)
        _checks.check_shape("sample_token", "history", history, (rows, history.shape[1]), "[B, L], B of logits")
    tensors = {name: value for name, value in numbers.items() if isinstance(value, Tensor)}
    for name, value in numbers.items():
        if isinstance(value, Tensor):
            _checks.check_shape("sample_token", name, value, (rows,), "[B] of logits")
            continue
        rule, holds = _RULES[name]
        if not (math.isfinite(value) and holds(value)):
            raise ValueError(f"sample_token: {name} must be {rule}, got {value}")
    _checks.check_constant("sample_token", logits=logits)
    _checks.check_served(
        "sample_token", logits=logits, seeds=seeds, positions=positions, history=history, **tensors)


def _stack(numbers: dict[str, Number], logits: Tensor) -> Tensor:
    """The five parameters as float32: [B, 5] beside the logits, or [1, 5] on the CPU when all rows share them.

    From there they travel with a kernel's launch: a copy to the device would take longer than the draw.
    """
    if not any(isinstance(value, Tensor) for value in numbers.values()):
        return torch.tensor([list(numbers.values())], dtype=torch.float32, device="cpu")
    shared = torch.ones(logits.shape[0], dtype=torch.float32, device=logits.device)
    return torch.stack(
        [value.float() if isinstance(value, Tensor) else shared * value for value in numbers.values()], dim=1)


@torch.library.register_fake(f"{_library.NAMESPACE}::sample_token")
def _fake_forward(
    logits: Tensor, seeds: Tensor, positions: Tensor, parameters: Tensor, history: Tensor | None
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(seeds), logits.new_empty(seeds.shape, dtype=torch.float32)
