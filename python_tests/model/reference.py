"""Independent models to judge ours: transformers' GPT-2 with the same weights, and plain torch where it has bands."""

from __future__ import annotations

import torch
from torch.nn import functional
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


def plain_forward(model: GPT, tokens: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Hidden states [B, T, D] of `model` in plain torch: float64 for the truth, f32 for a yardstick; bands included."""
    config = model.config
    weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], config.layer_norm_eps
        )

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    length = tokens.shape[1]
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    x = weights["wte.weight"][tokens] + weights["wpe.weight"][:length]
    for layer in range(config.n_layer):
        name, window = f"h.{layer}", config.window(layer) or length
        parts = linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").split(config.d_model, -1)
        q, k, v = (part.unflatten(-1, (config.n_head, -1)).transpose(1, 2) for part in parts)
        weight = q @ k.transpose(2, 3) / config.d_head**0.5
        weight = weight.masked_fill((distance < 0) | (distance >= window), float("-inf")).softmax(-1)
        x = x + linear((weight @ v).transpose(1, 2).flatten(2), f"{name}.attn.c_proj")
        wide = functional.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate="tanh")
        x = x + linear(wide, f"{name}.mlp.c_proj")
    return norm(x, "ln_f")
