"""What must hold before the first PPO update, and what is probably wrong when it does not.

Reward and loss curves do not reveal most mistakes in a PPO pipeline; these equalities do, at the cost of a few forwards
on a few responses. Each failure is a TrainingError that names the likely cause.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instructgpt_fast.errors import TrainingError
from instructgpt_fast.model import GPT
from instructgpt_fast.ops import PpoLoss
from instructgpt_fast.rlhf.batch import pack
from instructgpt_fast.rlhf.rollout import Rollout
from instructgpt_fast.rlhf.scoring import response_logprobs

__all__ = [
    "LOGPROB_TOLERANCE",
    "check_eos_counted",
    "check_first_minibatch",
    "check_neighbours",
    "check_reference",
    "check_repeatable",
    "check_reward_bias",
    "check_sampler",
]

# Mean absolute difference in nats between two correct computations of the same log-probability: float32 leaves about
# 1e-6, and the half types a few units in the last place of a logit near 8 (2^-7 in float16, 2^-4 in bfloat16).
# The faults looked for are far larger, except in a model without any opinion.
LOGPROB_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}

_PLAIN_ROWS = 64  # tokens whose whole logits are held at the same time: 13 MB with 50,257 words


def _fail(name: str, rule: str, got: str, cause: str) -> None:
    raise TrainingError(
        f"{name}: {rule}, got {got}; likely cause: {cause}. "
        "(check_invariants=False starts the run all the same.)"
    )


def _distance(a: Tensor, b: Tensor) -> float:
    # NaN compares false with every bound, so it is turned into the largest distance there is.
    distance = (a - b).abs().mean().item() if a.numel() else 0.0
    return distance if distance == distance else float("inf")


def check_repeatable(name: str, forward: Callable[[], Tensor]) -> None:
    """Two forwards of the same tokens give equal bits: fails when dropout is left on."""
    first, second = forward(), forward()
    if not torch.equal(first, second):
        _fail(
            "repeatable forward", f"two forwards of the {name} on the same tokens must be equal",
            f"a mean difference of {_distance(first, second):.3g}",
            f"dropout is left on in the {name}: put the model into eval mode, RL uses no dropout",
        )


def check_eos_counted(rollout: Rollout, eos_id: int) -> None:
    """A finished response ends with EOS, EOS is inside the loss mask, and nothing beyond the response is counted."""
    for row, (response, finished) in enumerate(zip(rollout.responses, rollout.finished.tolist(), strict=True)):
        counted = int(rollout.loss_mask[row].sum())
        if finished != (response[-1] == eos_id) or eos_id in response[:-1]:
            _fail(
                "EOS ends a response", f"response {row} must end with EOS (id {eos_id}) exactly when it is finished",
                f"finished={finished} with last token {response[-1]}",
                "the tokenizer's EOS is not the id the sampler stops at",
            )
        if counted != len(response) or not bool(rollout.loss_mask[row, : len(response)].all()):
            _fail(
                "EOS is counted", f"all {len(response)} tokens of response {row} must be counted, and no more",
                f"{counted} counted positions", "EOS is masked out, or EOS and PAD share an id",
            )


def check_neighbours(policy: GPT, rollout: Rollout, *, temperature: float) -> None:
    """Log-probabilities of a response are the same alone, packed beside others, and in a right-padded batch."""
    prompts, responses = rollout.prompts, rollout.responses
    tolerance = LOGPROB_TOLERANCE[policy.lm_weight.dtype]
    with torch.no_grad():
        together = response_logprobs(policy, pack(prompts, responses, rollout.device), temperature=temperature)[0]
        alone = torch.cat([
            response_logprobs(policy, pack([p], [r], rollout.device), temperature=temperature)[0]
            for p, r in zip(prompts, responses, strict=True)
        ])
        padded = _padded_logprobs(policy, prompts, responses, rollout.device, temperature)
    if (gap := _distance(together, alone)) > tolerance:
        _fail(
            "neighbour independence", "log-probabilities must not depend on the responses packed beside them",
            f"a mean difference of {gap:.3g} nats, tolerance {tolerance:g}",
            "attention crosses cu_seqlens, or positions do not restart at each sequence",
        )
    if (gap := _distance(alone, padded)) > tolerance:
        _fail(
            "padding independence", "log-probabilities must not depend on padding to the right",
            f"a mean difference of {gap:.3g} nats, tolerance {tolerance:g}",
            "position ids count padding, or attention is not causal",
        )


def _padded_logprobs(
    policy: GPT, prompts: list[list[int]], responses: list[list[int]], device: torch.device, temperature: float
) -> Tensor:
    # The plainest possible computation, on purpose unlike the one it judges.
    sequences = [p + r for p, r in zip(prompts, responses, strict=True)]
    width = max(map(len, sequences))
    tokens = torch.zeros(len(sequences), width, dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.tensor(sequence)
    hidden = policy(tokens.to(device))
    found = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        before = hidden[row, len(prompt) - 1 : len(prompt) + len(response) - 1]
        targets = torch.tensor(response, device=device)[:, None]
        for rows, drawn in zip(before.split(_PLAIN_ROWS), targets.split(_PLAIN_ROWS), strict=True):
            logits = (rows @ policy.lm_weight.T).float() / temperature
            found.append(logits.log_softmax(-1).gather(1, drawn).squeeze(1))
    return torch.cat(found)


def check_sampler(rollout: Rollout, trainer_logprobs: Tensor, dtype: torch.dtype) -> None:
    """The log-probabilities recorded by the sampler equal those of the trainer's forward, f32 [B, R] both."""
    tolerance = LOGPROB_TOLERANCE[dtype]
    gap = _distance(rollout.logprobs[rollout.loss_mask], trainer_logprobs[rollout.loss_mask])
    if gap > tolerance:
        _fail(
            "sampler against trainer", "the sampler's log-probabilities must equal the trainer's",
            f"a mean difference of {gap:.3g} nats, tolerance {tolerance:g}",
            "the trainer does not use the sampler's temperature, the sampler truncates or penalises the "
            "distribution, or it decodes with other weights or positions than the trainer's",
        )


def check_reference(logprobs: Tensor, ref_logprobs: Tensor, loss_mask: Tensor, dtype: torch.dtype) -> None:
    """KL(policy, reference) is 0 before the first update, token by token; f32 [B, R] both."""
    tolerance = LOGPROB_TOLERANCE[dtype]
    gap = _distance(logprobs[loss_mask], ref_logprobs[loss_mask])
    if gap > tolerance:
        _fail(
            "KL to the reference is 0", "the policy must start as a copy of the reference model",
            f"a mean difference of {gap:.3g} nats per token, tolerance {tolerance:g}",
            "policy and reference come from different checkpoints, or the reference is read at another temperature",
        )


def check_first_minibatch(result: PpoLoss, dtype: torch.dtype) -> None:
    """Before the first step every ratio is 1, so approx-KL and the clip fraction are 0."""
    tolerance = LOGPROB_TOLERANCE[dtype]
    ratio, approx_kl = float(result.ratio_mean), float(result.approx_kl)
    if not (abs(ratio - 1.0) <= tolerance and approx_kl <= 10.0 * tolerance**2):
        _fail(
            "ratio is 1 on the first minibatch", "before any update the new log-probabilities must be the old ones",
            f"mean ratio {ratio:.6g} and approx-KL {approx_kl:.3g}, tolerance {tolerance:g}",
            "the policy changed between rollout and update, old log-probabilities belong to other rows, "
            "or dropout or temperature differ between the two",
        )


def check_reward_bias(mean_score: float, standard_error: float, tolerance: float) -> None:
    """The reward model scores the demonstrations 0 on average (Ouyang et al. 2022, appendix C.2).

    mean_score, standard_error: of its scores on demonstrations. Fails when |mean| exceeds tolerance + 3 errors, which
    leaves room for demonstrations other than the ones it was normalised on.
    """
    bound = tolerance + 3.0 * standard_error
    if not abs(mean_score) <= bound:
        _fail(
            "demonstrations score 0",
            f"the reward model's mean score of the demonstrations must be within {bound:.3g} of 0", f"{mean_score:.4g}",
            "the reward model's bias was not normalised: give the reward stage the demonstrations",
        )
