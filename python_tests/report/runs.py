"""Run directories as the stages leave them, with numbers that are made up and known: the report is held to these."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from instructgpt_fast.config import to_toml
from instructgpt_fast.diagnosis import Finding, write_findings
from instructgpt_fast.train import PpoConfig, PretrainConfig, RewardConfig
from instructgpt_fast.train.records import Ceiling, RunRecord, Sample, SamplesLog

FINDING = Finding(
    name="kl_runaway", title="The KL runs away", severity="error", step=12,
    evidence="objective/kl rose from 0.1 to 48 nats over 12 iterations.", cause="kl_coef is 0.",
    remedy="Set kl_coef=0.02.", metrics=("objective/kl",),
)
WORDS = ("The", " moon", " is", " bright", ",", " and", " the", " sea", " is", " calm", " <b>", " &", " ünder", ".")


def write_metrics(folder: Path, records: Iterable[Mapping[str, Any]], unfinished: str = "") -> None:
    """metrics.jsonl, with what is not finite as text, as a run writes it; `unfinished`: the beginning of a line."""
    def plain(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({name: plain(value) for name, value in record.items()}) for record in records]
    (folder / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows) + unfinished, encoding="utf-8")


def finish(folder: Path, step: int) -> None:
    (folder / "result.json").write_text(json.dumps({"checkpoint": f"checkpoint-{step:06d}", "metrics": {}}))


def ppo_records(steps: int, **more: Any) -> list[dict[str, Any]]:
    """Metrics of PPO that go well: the score rises with sqrt(KL), the answers get a little longer."""
    rng = random.Random(0)
    records = []
    for step in range(1, steps + 1):
        kl = 6.0 * (1 - math.exp(-(step - 1) / 12)) + rng.uniform(0, 0.2)
        score = -0.3 + 1.0 * math.sqrt(kl) + rng.gauss(0, 0.08)
        records.append({
            "step": step, "objective/kl": kl, "objective/scores": score, "objective/scores_std": 0.8,
            "objective/rlhf_reward": score - 0.1 * kl, "objective/non_score_reward": -0.1 * kl,
            "objective/entropy": 90 - step, "objective/kl_coef": 0.1, "val/num_eos_tokens": 60.0,
            "val/eos_rate": min(0.99, 0.9 + 0.002 * step), "val/response_length": 20 + 0.1 * step + rng.gauss(0, 0.5),
            "val/explained_variance": 0.7 - 2 / step, "policy/approxkl_avg": 0.001, "policy/clipfrac_avg": 0.02,
            "policy/entropy_avg": 4.8 - 0.03 * step, "loss/policy_avg": -0.002, "loss/value_avg": 1 / step,
            "val/clipfrac_avg": 0.1, "val/ratio": 1 + rng.gauss(0, 2e-4), "val/ratio_var": 1e-6, "lr": 1e-5,
            "value_lr": 2e-5, "time/rollout": 0.2, "time/score": 0.3, "time/update": 0.7, "episode": 64.0 * step,
            "tokens_per_second": 3000.0, **more,
        })
    return records


def sample(step: int, prompt: str, seed: int, shift: float) -> Sample:
    """An answer of made-up words whose KL, advantages and values differ by the token."""
    rng = random.Random(f"{prompt}{step}")
    words = [*rng.sample(WORDS, k=10), ""]
    return Sample(
        step=step, prompt=prompt, seed=seed, tokens=words, token_ids=list(range(len(words))),
        logprobs=[-rng.random() * 4 for _ in words], finished=True, kl=[rng.gauss(shift, 0.4) for _ in words],
        advantages=[rng.gauss(0, 1) for _ in words], values=[rng.gauss(shift, 0.5) for _ in words],
        score=rng.gauss(shift, 1),
    )


def write_ppo(folder: Path, *, steps: int = 40, findings: list[Finding] | None = None, samples: int = 3) -> Path:
    """A finished PPO run with everything that one records."""
    write_metrics(folder, ppo_records(steps))
    config = PpoConfig(
        policy="runs/sft/checkpoint-10", prompts="prompts.jsonl", reward_model="runs/rm", output_dir=str(folder),
        total_episodes=64 * steps, batch_size=64, kl_coef=0.1,
    )
    (folder / "resolved.toml").write_text(to_toml(config), encoding="utf-8")
    RunRecord(
        stage="ppo", started="2026-03-01T10:00:00+00:00", ended="2026-03-01T10:07:30+00:00",
        parameters={"policy": 2_600_000, "value": 2_600_000}, flops_per_unit=2.0e7, flops_formula="made up",
        device="cpu", dtype="fp32", threads=2, ceiling=Ceiling(2.4e11, "cpu, fp32, 2 threads, n = 1024"),
    ).write(folder)
    log = SamplesLog(folder)
    for step in (0, steps // 2, steps):
        log.write([
            sample(step, f"Tell me about prompt {i} <script>alert(1)</script>", i, step / steps) for i in range(samples)
        ])
    write_findings(folder, findings or [])
    finish(folder, steps)
    return folder


def write_language_model(folder: Path, *, steps: int = 30, evaluated: bool = True) -> Path:
    """A finished pretraining run; every tenth step is measured on held-out text."""
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 3 + 5 / step
        records.append({
            "step": step, "loss": loss, "grad_norm": 2 / step, "learning_rate": 2e-3 * step / steps, "epoch": 0.5,
            "tokens_per_second": 9000.0,
        })
        if evaluated and step % 10 == 0:
            records.append({"step": step, "eval_loss": loss + 0.1, "eval_perplexity": math.exp(loss + 0.1),
                            "eval_reward": 0.1 * step})
    write_metrics(folder, records)
    options = {"eval_data": "held.txt"} if evaluated else {}
    config = PretrainConfig(model="gpt2-124m", data="corpus", output_dir=str(folder), **options)
    (folder / "resolved.toml").write_text(to_toml(config), encoding="utf-8")
    finish(folder, steps)
    return folder


def evaluation(step: int) -> dict[str, Any]:
    """One evaluation of calibration.json: a model that is a little too sure."""
    bins = [
        {"low": 0.5 + 0.05 * i, "high": 0.55 + 0.05 * i, "confidence": 0.525 + 0.05 * i, "share": 0.52 + 0.04 * i,
         "half_width": 0.03 if i else None, "pairs": 300 - 25 * i, "prompts": 50} for i in range(10)
    ]
    return {
        "step": step, "accuracy": 0.72, "half_width": 0.02, "pairs": sum(part["pairs"] for part in bins),
        "prompts": 90, "expected_calibration_error": 0.04, "log_loss": 0.55, "bins": bins,
        "by_k": [{"k": k, "accuracy": 0.66 + 0.02 * k, "half_width": 0.03, "pairs": 100 * k, "prompts": 20}
                 for k in (4, 5, 9)],
    }


def write_reward(folder: Path, *, steps: int = 30, calibrated: bool = True) -> Path:
    """A finished reward run, evaluated in the middle and at the end."""
    records: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        records.append({
            "step": step, "loss": 0.7 - 0.005 * step, "accuracy": 0.5 + 0.007 * step, "grad_norm": 1.0,
            "learning_rate": 1e-5, "epoch": step / steps, "tokens_per_second": 12000.0,
        })
        if step in (steps // 2, steps):
            records.append({
                "step": step, "eval_accuracy": 0.6 + 0.004 * step, "eval_accuracy_ci95": 0.02, "eval_loss": 0.6,
                "eval_accuracy_k4": 0.7, "eval_accuracy_k9": 0.75,
            })
    write_metrics(folder, records)
    if calibrated:
        text = json.dumps({"evaluations": [evaluation(steps // 2), evaluation(steps)]})
        (folder / "calibration.json").write_text(text)
    config = RewardConfig(init="runs/sft", data="c.jsonl", eval_data="held.jsonl", output_dir=str(folder))
    (folder / "resolved.toml").write_text(to_toml(config), encoding="utf-8")
    finish(folder, steps)
    return folder
