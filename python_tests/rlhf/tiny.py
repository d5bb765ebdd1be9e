"""Tiny models and rollouts for the RL tests: vocabulary 300, width 32, a few milliseconds a forward."""

from __future__ import annotations

import torch
from torch import Tensor

from instructgpt_fast.generate import SamplingConfig
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.rlhf.rollout import Rollout, collect, episode_seeds

EOS = 299
VOCAB = 300
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [20, 21]]


def tiny_gpt(seed: int = 0, *, sharpness: float = 8.0, residual_dropout: float = 0.0) -> GPT:
    """A GPT with random weights; `sharpness` scales the embedding so that its distribution is not nearly uniform."""
    torch.manual_seed(seed)
    config = GPTConfig(
        vocab_size=VOCAB, n_positions=64, n_layer=2, n_head=2, d_model=32, residual_dropout=residual_dropout
    )
    model = GPT(config)
    with torch.no_grad():
        model.wte.weight.mul_(sharpness)
        # EOS is drawn about once in ten tokens, so that responses differ in length.
        model.ln_f.bias.add_(6.0 * model.wte.weight[EOS] / model.wte.weight[EOS].norm())
    return model.eval()


def tiny_scalar(seed: int = 1) -> ScalarModel:
    """A scalar model of the same vocabulary with its own weights."""
    torch.manual_seed(seed)
    return ScalarModel(GPTConfig(vocab_size=VOCAB, n_positions=64, n_layer=1, n_head=2, d_model=16)).eval()


def tiny_rollout(policy: GPT, *, seed: int = 3, max_new_tokens: int = 12, temperature: float = 1.0) -> Rollout:
    """Responses of the policy to PROMPTS."""
    sampling = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
    seeds = episode_seeds(seed, 0, len(PROMPTS))
    return collect(policy, PROMPTS, sampling, eos_id=EOS, seeds=seeds, batch_size=8)


def plain_logits(model: GPT, prompt: list[int], response: list[int]) -> Tensor:
    """Logits of each response token of one sequence, whole and in float64 from the hidden states: the plain way."""
    hidden = model(torch.tensor([prompt + response]))[0]
    before = hidden[len(prompt) - 1 : len(prompt) + len(response) - 1]
    return before.double() @ model.lm_weight.double().T


def plain_logprobs(model: GPT, prompt: list[int], response: list[int], temperature: float = 1.0) -> Tensor:
    """Log-probability of each response token of one sequence, float64."""
    logits = plain_logits(model, prompt, response) / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).squeeze(1)
