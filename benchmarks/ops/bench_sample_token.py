"""sample_token beside the usual steps in plain PyTorch: top-k, a sort for top-p, softmax, multinomial, log-softmax.

On a GPU also beside FlashInfer's sampler, where it is installed; that returns no log-probability.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.op_benchmark import Case, Contender, Inputs, run
from instructgpt_fast import ops

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "greedy": {"temperature": 0.0},
    "T 0.7, top-k 50": {"temperature": 0.7, "top_k": 50},
    "top-p 0.9": {"top_p": 0.9},
    "T 0.7, k 50, p 0.9, min-p 0.05": {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.05},
}


def draw(
    rows: int, vocab: int, scale: float, device: str, dtype: torch.dtype = torch.float32
) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = torch.Generator(device).manual_seed(seed)
        return {
            "logits": torch.randn(rows, vocab, generator=generator, device=device).mul_(scale).to(dtype),
            "seeds": torch.randint(0, 2**62, (rows,), generator=generator, device=device),
            "positions": torch.randint(0, 2048, (rows,), generator=generator, device=device),
        }

    return inputs


def plain(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row; the generator is torch's, so the tokens are others than ours."""
    scores = logits if temperature in (0.0, 1.0) else logits / temperature
    logprobs = torch.log_softmax(scores, dim=-1)
    if temperature == 0.0:
        tokens = scores.argmax(-1, keepdim=True)
        return tokens, logprobs.gather(1, tokens)
    nothing = float("-inf")
    if top_k:
        scores = scores.masked_fill(scores < torch.topk(scores, top_k).values[:, -1:], nothing)
    if top_p < 1:
        ordered, order = torch.sort(scores)
        dropped = torch.softmax(ordered, dim=-1).cumsum(-1) <= 1 - top_p
        dropped[:, -1] = False
        scores = scores.masked_fill(dropped.scatter(1, order, dropped), nothing)
    probabilities = torch.softmax(scores, dim=-1)
    if min_p:
        light = probabilities < min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(light, 0)
    tokens = torch.multinomial(probabilities, 1)
    return tokens, logprobs.gather(1, tokens)


def flashinfer(options: dict[str, Any]) -> dict[str, Contender]:
    """FlashInfer's sampler for options that it serves from logits; none where it is not installed."""
    if "min_p" in options or options.get("temperature") == 0.0 or importlib.util.find_spec("flashinfer") is None:
        return {}
    sampling = importlib.import_module("flashinfer.sampling")

    def contender(inputs: Inputs) -> Sequence[torch.Tensor]:
        logits = inputs["logits"].float() / options.get("temperature", 1.0)
        if options.get("top_k") or options.get("top_p", 1.0) < 1.0:
            top_k = options.get("top_k") or logits.shape[1]
            return [sampling.top_k_top_p_sampling_from_logits(logits, top_k, options.get("top_p", 1.0))]
        return [sampling.sampling_from_logits(logits)]

    return {"flashinfer": contender}


def cases(device: str) -> Sequence[Case]:
    """GPT-2's vocabulary, one row and 64; a peaked row (scale 4, as a trained model's) and a flat one.

    On a GPU in bfloat16, and 512 rows of a vocabulary of 131,072. The check compares tokens, which must equal the
    oracle's; the rivals draw with other generators.
    """
    sizes = [(64, 50257, 4.0, name) for name in FILTERS]
    sizes += [(1, 50257, 4.0, "all"), (1, 50257, 4.0, "T 0.7, k 50, p 0.9, min-p 0.05"), (64, 50257, 1.0, "top-p 0.9"),
              (64, 8192, 4.0, "all")]  # fmt: skip
    dtype = torch.float32
    if device == "cuda":
        dtype = torch.bfloat16
        sizes += [(512, 131072, 4.0, name) for name in ("all", "T 0.7, top-k 50", "top-p 0.9")]
        sizes += [(1, 50257, 4.0, name) for name in ("greedy", "T 0.7, top-k 50", "top-p 0.9")]
    return [
        Case(
            f"{rows} x {vocab}{'' if scale > 1 else ' flat'}, {name}",
            draw(rows, vocab, scale, device, dtype),
            draw_check=draw(min(rows, 64), vocab, scale, device, dtype),
            ours=lambda i, options=FILTERS[name]: [ops.sample_token(**i, **options)[0]],
            rivals={"torch": lambda i, options=FILTERS[name]: [plain(i["logits"].float(), **options)[0][:, 0]],
                    **(flashinfer(FILTERS[name]) if device == "cuda" else {})},
            oracle=lambda i, options=FILTERS[name]: [ops.sample_token_oracle(**i, **options)[0]],
            moved_bytes=dtype.itemsize * rows * vocab,
        )
        for rows, vocab, scale, name in sizes
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all cases."""
    run("sample_token", cases, arguments)
