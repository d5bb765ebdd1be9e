"""An independent GPT-2 to judge ours: transformers' own, carrying the same weights."""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from instructgpt_fast.model import GPT, GPTConfig

SMALL = GPTConfig(vocab_size=97, n_positions=48, n_layer=3, n_head=4, d_model=32)


def random_gpt(config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A GPT whose every parameter is random and large enough to matter, biases and norms included."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def transformers_gpt2(model: GPT) -> GPT2LMHeadModel:
    """transformers' GPT-2 with the weights of `model`: theirs are [in, out], ours [out, in]."""
    config = model.config
    judge = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.n_positions, n_embd=config.d_model,
            n_layer=config.n_layer, n_head=config.n_head, n_inner=config.feed_forward,
            layer_norm_epsilon=config.layer_norm_eps, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        )
    )
    weights = {}
    for name, tensor in model.state_dict().items():
        linear = tensor.dim() == 2 and name.startswith("h.")
        weights[f"transformer.{name}"] = tensor.t() if linear else tensor
    weights["lm_head.weight"] = model.lm_weight.detach()
    judge.load_state_dict(weights, strict=True)
    return judge.eval()


def pack(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Concatenate rows of tokens and return them with their int32 boundaries."""
    lengths = torch.tensor([0] + [len(row) for row in rows])
    return torch.cat(rows), lengths.cumsum(0).to(torch.int32)
