"""The ablations run on a quickstart too small to learn, and their verdicts follow from hand-worked differences."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks.ablations import run
from benchmarks.ablations.findings import finding
from benchmarks.ablations.finished import Quickstart
from benchmarks.ablations.policies import SFT, VARIANTS
from benchmarks.ablations.rewards import fit
from instructgpt_fast.checkpoint import load_model, save_checkpoint
from instructgpt_fast.evaluate.reward_accuracy import RankedAnswers, reward_accuracy
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.quickstart.material import Material, write_rows
from instructgpt_fast.quickstart.plan import SMALL
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train.reward import centre_scores

SENTENCES = [
    "She was happy to see the old house again.", "The storm was terrible and the road was lost.",
    "He laughed and gave her a kind smile.", "Nobody could say where the letter came from.",
    "They walked through the garden in the cold rain.", "It was a bad year for every farmer in the county.",
]
PLAN = replace(
    SMALL, vocab=300, layers=1, width=16, heads=2, context=160, episodes=4, ppo_batch=4, ppo_minibatch=2,
    reward_batch=2, answer_tokens=3,
)


def write_quickstart(folder: Path) -> None:
    """What a finished quickstart leaves behind, with random models."""
    material = Material(folder / "data")
    material.folder.mkdir(parents=True)
    prompts = [f"Continue the story: {sentence}" for sentence in SENTENCES]
    demonstrations = [{"prompt": p, "response": s} for p, s in zip(prompts, reversed(SENTENCES), strict=True)]
    ranked = [{"prompt": p, "completions": SENTENCES[:4], "ranks": [1, 3, 2, 2]} for p in prompts]
    for path in (material.text, material.validation_text):
        write_rows(path, [{"text": " ".join(SENTENCES)}] * 4)
    write_rows(material.demonstrations, demonstrations)
    write_rows(material.validation_demonstrations, demonstrations)
    write_rows(material.ppo_prompts, [{"prompt": p} for p in prompts])
    write_rows(material.comparisons, ranked)
    write_rows(material.validation_comparisons, [*ranked, {**ranked[0], "ranks": [1, 1, 1, 1]}])
    (folder / "tokenizer").mkdir()
    tokenizer = Tokenizer.train(SENTENCES, PLAN.vocab)
    tokenizer.save(folder / "tokenizer" / "tokenizer.json")
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(
        vocab_size=tokenizer.vocab_size, n_positions=PLAN.context, n_layer=PLAN.layers, n_head=PLAN.heads,
        d_model=PLAN.width,
    ))
    scorer = ScalarModel.from_gpt(gpt)
    centre_scores(scorer, [
        tokenizer.encode_example(row["prompt"], row["response"], "dialogue").tokens for row in demonstrations
    ], 8)
    for stage, model in (("sft", gpt), ("reward", scorer)):
        path = folder / stage / "checkpoint-000001"
        save_checkpoint(path, model=model, tokenizer=tokenizer, prompt_format="dialogue", stage=stage)
    (folder / "results.json").write_text(json.dumps({"plan": asdict(PLAN)}), encoding="utf-8")
    (folder / "quickstart.json").write_text(json.dumps({"options": {"seed": 0, "minutes": 6.0}}), encoding="utf-8")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    write_quickstart(folder)
    return folder


def test_every_variant_is_trained_measured_and_recorded(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = {}

    def keep(name: str, device: str, results: dict) -> Path:
        recorded.update(results)
        return tmp_path / f"{name}-{device}.json"

    monkeypatch.setattr(run, "write_results", keep)
    run.main([
        "--quickstart", str(quickstart), "--output", str(tmp_path), "--seeds", "0", "1", "--reward-prompts", "4",
        "--reward-epochs", "1",
    ])
    json.dumps(recorded)  # plain values only
    by_name = {name: [p for p in recorded["policies"] if p["name"] == name] for name in (SFT, *VARIANTS)}
    assert all(len(found) == 2 for found in by_name.values())
    assert all(p["kl"] == pytest.approx(0.0, abs=1e-5) for p in by_name[SFT])  # float32 rounding of equal models
    assert all(p["kl"] != 0.0 for p in by_name["PPO, beta 0"])
    assert [(m["pairs"], m["seed"]) for m in recorded["reward_models"]] == [
        ("grouped", 0), ("grouped", 1), ("shuffled", 0), ("shuffled", 1),
    ]
    assert {f["verdict"] for f in recorded["findings"]} <= {"appeared", "opposite", "not resolved"}
    assert any("PPO-ptx" in line for line in recorded["printed"])


def test_variants_change_one_thing(quickstart: Path, tmp_path: Path) -> None:
    source = Quickstart.read(quickstart)
    made = {
        name: asdict(source.options(stage, tmp_path, 1, **changes)) for name, (stage, changes) in VARIANTS.items()
    }
    plain = made.pop("PPO, beta 0.02")
    changed = {name: {field for field in plain if options[field] != plain[field]} for name, options in made.items()}
    assert changed["PPO, beta 0"] == changed["PPO, beta 2"] == {"kl_coef"}
    assert changed["PPO-ptx, beta 0.02"] <= {"ptx_data", "ptx_coef", "ptx_ratio", "ptx_length"}
    assert "ptx_data" in changed["PPO-ptx, beta 0.02"]


def test_fit_agrees_with_the_package(quickstart: Path) -> None:
    source = Quickstart.read(quickstart)
    rows = source.material.rows(source.material.validation_comparisons)
    model = load_model(source.checkpoints["reward"])
    mine = fit(model, rows)
    package = reward_accuracy(model.model, [
        RankedAnswers(
            [model.tokenizer.encode_example(row["prompt"], c, "dialogue").tokens for c in row["completions"]],
            row["ranks"],
        )
        for row in rows
    ])
    assert len(mine.losses) == len(rows) - 1  # one row is all ties
    # Both sum the same float32 scores in float64, in another order.
    assert mine.loss == pytest.approx(package.loss, rel=1e-9)
    assert mine.accuracy == pytest.approx(package.overall.accuracy, rel=1e-9)


def test_an_unfinished_quickstart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="must hold a finished quickstart"):
        Quickstart.read(tmp_path)


def test_verdicts() -> None:
    # Two seeds 0.2 apart around 1: standard error 0.1 between seeds, and 0.3 / sqrt(2) from the prompts.
    found = finding("c", "s", "u", [0.9, 1.1], [0.3, 0.3])
    assert found.error == pytest.approx(math.hypot(0.1, 0.3 / math.sqrt(2)))
    assert found.verdict == "appeared"
    assert finding("c", "s", "u", [-0.9, -1.1], [0.3, 0.3]).verdict == "opposite"
    assert finding("c", "s", "u", [0.9, 1.1], [1.0, 1.0]).verdict == "not resolved"
    assert finding("c", "s", "u", [-0.1, 1.0]).verdict == "not resolved"
