"""Learning rates and batch sizes as pure functions of how far a run has come; steps count from 0."""

from __future__ import annotations

import math

# Brown et al. 2020, arXiv:2005.14165, appendix B.
GPT3_WARMUP_TOKENS = 375_000_000
GPT3_DECAY_TOKENS = 260_000_000_000
GPT3_FIRST_BATCH_TOKENS = 32_000


def cosine_to_fraction(step: float, total: float, peak: float, floor: float = 0.1, warmup: float = 0) -> float:
    """Cosine from `peak` down to `floor * peak`, after a linear warm-up; `floor * peak` from then on.

    The peak is reached at step == warmup and the floor at step == total. With a warm-up the first step already
    learns: step s < warmup gives peak * (s + 1) / (warmup + 1).
    Ouyang et al. 2022, arXiv:2203.02155, appendix C: cosine to 10 % without a warm-up.
    step, total, warmup: in the same unit, optimizer steps or tokens. peak: the largest rate.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def constant_with_warmup(step: float, peak: float, warmup_steps: float, start_fraction: float = 0.1) -> float:
    """Linear from `start_fraction * peak` at step 0 to `peak` at step == warmup_steps, then constant.

    Ouyang et al. 2022, arXiv:2203.02155, appendix C.4: over 10 iterations from a tenth of the peak.
    """
    if step >= warmup_steps:
        return peak
    return peak * (start_fraction + (1.0 - start_fraction) * step / warmup_steps)


def gpt3_learning_rate(
    tokens: float,
    peak: float,
    *,
    warmup_tokens: float = GPT3_WARMUP_TOKENS,
    decay_tokens: float = GPT3_DECAY_TOKENS,
    floor: float = 0.1,
) -> float:
    """GPT-3's rate after `tokens` training tokens: linear warm-up from 0, then cosine to a tenth of the peak.

    Count the tokens of the step itself, or the first step learns nothing. The cosine spans the whole `decay_tokens`,
    counted from the start of training, and stays at its floor afterwards.
    Brown et al. 2020, arXiv:2005.14165, appendix B.
    """
    warm = min(1.0, tokens / warmup_tokens) if warmup_tokens > 0 else 1.0
    return warm * cosine_to_fraction(tokens, decay_tokens, peak, floor)


def gpt3_batch_tokens(
    tokens: float, full: float, *, ramp_tokens: float, start: float = GPT3_FIRST_BATCH_TOKENS
) -> float:
    """GPT-3's batch size in tokens after `tokens` training tokens: linear from `start` to `full` over `ramp_tokens`.

    Brown et al. 2020, arXiv:2005.14165, appendix B: from 32k tokens over the first 4 to 12 billion tokens. A run whose
    full batch is smaller than `start` uses the full batch at once.
    """
    if start >= full or tokens >= ramp_tokens:
        return full
    return start + (full - start) * tokens / ramp_tokens
