"""The whole quickstart with a tiny plan: every stage, the table, a stopped run continued, a finished one kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.config import to_dict
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.quickstart import QuickstartConfig, plan, run, run_quickstart
from instructgpt_fast.quickstart.material import write_material
from instructgpt_fast.quickstart.plan import LARGE, SMALL, plan_for

TINY = replace(
    SMALL, vocab=400, layers=1, width=32, heads=1, context=320, pretrain_steps=4, pretrain_batch=2,
    story_demonstrations=24, fact_demonstrations=8, comparison_prompts=24, episodes=16, ppo_batch=8, ppo_minibatch=4,
    validation_fraction=0.01, validation_prompts=8, answer_tokens=8,
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "plan_for", lambda minutes: TINY)


def config(folder: Path, **options: Any) -> QuickstartConfig:
    return QuickstartConfig(output_dir=str(folder), progress=False, device="cpu", **options)


@pytest.mark.usefixtures("tiny")
def test_a_stopped_run_continues_and_a_finished_one_is_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    train = run.train

    def stopping(options: Any) -> Any:
        trained.append(Path(options.output_dir).name)
        if trained == ["base", "sft", "reward"]:
            raise KeyboardInterrupt
        return train(options)

    monkeypatch.setattr(run, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_quickstart(config(tmp_path))
    result = run_quickstart(config(tmp_path))
    assert trained == ["base", "sft", "reward", "reward", "ppo", "ppo_ptx"]

    assert result.results == json.loads((tmp_path / "results.json").read_text())
    assert set(result.results["perplexity"]) == {"base", "sft", "ppo", "ppo_ptx"}
    assert all(math.isfinite(value) for value in result.results["perplexity"].values())
    # The SFT model is the reference, so its KL to itself is zero but for the order of float32 sums.
    assert result.results["policies"]["sft"]["kl"] == pytest.approx(0.0, abs=1e-4)
    shown = capsys.readouterr().out
    talk = "instructgpt-fast chat --checkpoint"
    for text in ("perplexity", "PPO-ptx", "held-out pairs", "stand-in", "report.html", talk):
        assert text in shown

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("Pretraining", "Supervised fine-tuning", "Calibration", "Reward against KL", "PPO-ptx"):
        assert text in page

    monkeypatch.setattr(run, "train", lambda options: pytest.fail("a finished stage ran again"))
    assert run_quickstart(config(tmp_path)).results == result.results


@pytest.mark.usefixtures("tiny")
def test_a_folder_with_other_options_is_refused_and_kept(tmp_path: Path) -> None:
    journal = tmp_path / "quickstart.json"
    journal.write_text(json.dumps({"options": {"minutes": 6.0, "seed": 1}, "done": {}}))
    before = journal.read_bytes()
    with pytest.raises(ConfigError, match="choose another output_dir"):
        run_quickstart(config(tmp_path, seed=2))
    assert journal.read_bytes() == before


def test_no_prompt_is_used_twice_and_kept_chapters_stay_unseen(tmp_path: Path) -> None:
    material = write_material(tmp_path, SMALL, seed=0)
    files = (
        material.demonstrations, material.validation_demonstrations, material.comparison_prompts, material.ppo_prompts,
    )
    prompts = [{row["prompt"] for row in material.rows(path)} for path in files]
    assert all(prompts)
    assert sum(map(len, prompts)) == len(set().union(*prompts))
    kept = [row["text"] for row in material.rows(material.validation_text)]
    seen = {row["text"] for row in material.rows(material.text)}
    assert kept and not seen.intersection(kept)


def test_longer_runs_are_larger() -> None:
    assert plan_for(6.0) == SMALL
    assert plan_for(60.0) == LARGE
    assert plan_for(12.0).pretrain_steps == 2 * SMALL.pretrain_steps
    assert plan_for(30.0).pretrain_steps < LARGE.pretrain_steps
    assert plan_for(plan.SMALL_FROM).pretrain_steps < SMALL.pretrain_steps
    with pytest.raises(ConfigError, match="at least 1"):
        plan_for(0.5)


def test_options_are_the_command_lines(tmp_path: Path) -> None:
    assert set(to_dict(config(tmp_path))) == {"minutes", "output_dir", "seed", "device", "progress"}
