"""The same stages as people write them by hand in PyTorch: padded batches, whole logits, torch.optim.AdamW.

This is the yardstick of the stage benchmarks where no other library is installed. It is written to be good plain
PyTorch: SDPA attention, fused AdamW, no gradient where none is needed, a key-value cache in generation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: list[Tensor] | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, dim=-1)
        )
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        causal = mask is None and length > 1
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 architecture; forward gives hidden states [B, T, D]."""

    def __init__(self, vocab: int, positions: int, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, caches: list[list[Tensor]] | None = None, start: int = 0) -> Tensor:
        places = torch.arange(start, start + tokens.shape[1])
        x = self.tokens(tokens) + self.positions(places)
        for index, block in enumerate(self.blocks):
            x = block(x, None, caches[index] if caches is not None else None)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.tokens.weight.T


class PlainScalar(nn.Module):
    """A GPT with one number per token, as reward or value model."""

    def __init__(self, trunk: PlainGPT) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.ln_f.weight.numel(), 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.trunk(tokens)).squeeze(-1)


def optimizer(*models: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for model in models for p in model.parameters()]
    return torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def apply(optim: torch.optim.Optimizer, *models: nn.Module) -> None:
    """Clip the gradients that were accumulated, and step."""
    nn.utils.clip_grad_norm_([p for model in models for p in model.parameters()], 1.0)
    optim.step()
    optim.zero_grad()


def token_loss(model: PlainGPT, tokens: Tensor, counted: Tensor) -> Tensor:
    """Mean next-token loss of [B, T] tokens over the counted targets (right padding needs no attention mask)."""
    logits = model.logits(model(tokens[:, :-1]))
    labels = tokens[:, 1:].masked_fill(~counted[:, 1:], -100)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def ranking_loss(model: PlainScalar, tokens: Tensor, last: Tensor, ranks: list[list[int]]) -> Tensor:
    """All pairs of each group of answers; tokens [sum K, T], last = index of each answer's last token."""
    scores = model(tokens).gather(1, last[:, None]).squeeze(1)
    losses, start = [], 0
    for group in ranks:
        mine = scores[start : start + len(group)]
        start += len(group)
        order = torch.tensor(group)
        better = order[:, None] < order[None, :]
        losses.append(-F.logsigmoid(mine[:, None] - mine[None, :])[better].mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def generate(model: PlainGPT, prompts: Tensor, new_tokens: int) -> Tensor:
    """Sample from equal-length prompts [B, P] with a key-value cache; gives [B, P + new_tokens]."""
    caches: list[list[Tensor]] = [[] for _ in model.blocks]
    hidden = model(prompts, caches)
    out = prompts
    for step in range(new_tokens):
        drawn = torch.multinomial(model.logits(hidden[:, -1]).softmax(-1), 1)
        out = torch.cat([out, drawn], dim=1)
        if step + 1 < new_tokens:
            hidden = model(drawn, caches, start=out.shape[1] - 1)
    return out


def log_probs(model: PlainGPT, tokens: Tensor, prompt: int) -> Tensor:
    """Log-probabilities [B, R] of the tokens after the first `prompt` ones."""
    logits = model.logits(model(tokens[:, :-1])[:, prompt - 1 :])
    return logits.log_softmax(-1).gather(2, tokens[:, prompt:, None]).squeeze(2)


def advantages_of(rewards: Tensor, values: Tensor, lam: float = 0.95) -> Tensor:
    running, out = torch.zeros(len(rewards)), torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros(len(rewards))
        running = rewards[:, t] + following - values[:, t] + lam * running
        out[:, t] = running
    return out


def ppo_step(
    policy: PlainGPT, reference: PlainGPT, reward: PlainScalar, value: PlainScalar, optim: torch.optim.Optimizer,
    prompts: Tensor, new_tokens: int, rows_in_a_pass: int,
) -> None:
    """One PPO iteration on equal-length prompts: rollout, scores, one clipped update of policy and value in passes."""
    length = prompts.shape[1]
    tokens = generate(policy, prompts, new_tokens)
    with torch.no_grad():
        old = log_probs(policy, tokens, length)
        rewards = -0.02 * (old - log_probs(reference, tokens, length))
        rewards[:, -1] += reward(tokens)[:, -1]
        old_values = value(tokens)[:, length - 1 : -1]
        advantages = advantages_of(rewards, old_values)
        returns = advantages + old_values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    passes = torch.randperm(len(tokens)).split(rows_in_a_pass)
    for rows in passes:
        kept = advantages[rows]
        ratio = (log_probs(policy, tokens[rows], length) - old[rows]).exp()
        policy_loss = torch.max(-kept * ratio, -kept * ratio.clamp(0.8, 1.2)).mean()
        now = value(tokens[rows])[:, length - 1 : -1]
        near = old_values[rows] + (now - old_values[rows]).clamp(-0.2, 0.2)
        value_loss = 0.5 * torch.max((now - returns[rows]) ** 2, (near - returns[rows]) ** 2).mean()
        ((policy_loss + 0.1 * value_loss) / len(passes)).backward()
    apply(optim, policy, value)
