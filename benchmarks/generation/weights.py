"""Random weights that every contender loads: varied greedy text, and on request an end-of-text of known likelihood."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.stages.files import gpt_config
from benchmarks.stages.work import Size
from instructgpt_fast.model import GPT

EOS, PAD = 0, 1
# With the small weights that training starts from a model repeats its input; with these it wanders.
SPREAD = 5.0


def write_weights(path: Path, size: Size, mean_tokens: float | None = None) -> None:
    """Write a model drawn from seed 0.

    mean_tokens: id EOS ends a sampled answer after about so many tokens on average; None leaves it as likely as any id.
    """
    if path.exists():
        return
    torch.manual_seed(0)
    model = GPT(gpt_config(size))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(SPREAD)
        # Logits of unit size: sampled text is neither one token for ever nor all tokens alike.
        model.ln_f.weight.fill_(1.0 / (0.02 * SPREAD * math.sqrt(size.width)))
        if mean_tokens is not None:
            pull_to_end(model, mean_tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def pull_to_end(model: GPT, mean_tokens: float) -> None:
    """Give EOS a constant logit: it reads the final norm's bias alone, the other ids read it not at all."""
    # The other logits are N(0, 1): 0.5 is the logarithm of the mean of their exponentials.
    logit = math.log(model.config.vocab_size) + 0.5 - math.log(mean_tokens - 1.0)
    direction = torch.zeros(model.config.d_model)
    direction[0] = 1.0
    model.wte.weight[:, 0] = 0.0
    model.wte.weight[EOS] = direction
    model.ln_f.weight[0] = 0.0
    model.ln_f.bias.copy_(direction * logit)


def our_model(path: Path, size: Size) -> GPT:
    """The model in this package."""
    model = GPT(gpt_config(size))
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def transformers_model(path: Path, size: Size) -> Any:
    """The same model as transformers' GPT-2, which keeps its linear weights as [in, out]."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=size.vocab, n_positions=size.positions, n_embd=size.width, n_layer=size.layers, n_head=size.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD,
    ))
    named = {
        f"transformer.{name}": value.t() if value.dim() == 2 and name.startswith("h.") else value
        for name, value in load_file(path).items()
    }
    missing, unexpected = model.load_state_dict(named, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"weights: transformers' GPT-2 must have our tensors, got {missing=}, {unexpected=}")
    return model.eval().requires_grad_(False)
