"""Every stage benchmark runs, on work too small to measure, and its contenders do the same work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.stages.clock import StepClock
from benchmarks.stages.compare import CASES, CONTENDERS, Round, against, check_tokens, installed, summary
from benchmarks.stages.contender import MODULES
from benchmarks.stages.files import write_work
from benchmarks.stages.report import show
from benchmarks.stages.work import STAGES, Size, Work
from instructgpt_fast.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2
OWN = [(name, stage) for name in ("ours", "plain") for stage in STAGES]
PEERS = [(name, stage) for stage in STAGES for name in CONTENDERS[stage] if name not in ("ours", "plain")]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    made = Work(
        Size(512, layers=1, width=16, heads=2, positions=256), tmp_path_factory.mktemp("stages"), pretrain_batch=2,
        sft_batch=3, reward_batch=2, ppo_batch=4, ppo_pass=2, ppo_new_tokens=3, generate_batch=2, prompt_tokens=4,
        new_tokens=3,
    )
    write_work(made, documents=10, corpora=("austen",))
    return made


def tokens_of(contender: str, stage: str, work: Work, scratch: Path) -> list[int]:
    """Real tokens of each step as the contender counts them."""
    clock = StepClock()
    module = importlib.import_module(f"benchmarks.stages.{MODULES[contender]}")
    module.prepare(stage)(work, STEPS, clock, scratch)
    assert len(clock.seconds) == STEPS
    assert min(clock.seconds) > 0
    assert clock.peak > 0
    return clock.tokens


def expected_tokens(stage: str, work: Work) -> list[int] | None:
    """The same, counted here; None for PPO, whose answers may end early."""
    words = Tokenizer.load(work.tokenizer)

    def length(prompt: str, answer: str) -> int:
        return len(words.encode(prompt)) + len(words.encode(answer)) + 1

    if stage == "sft":
        rows = [length(r["prompt"], r["response"]) for r in work.rows_in_order(work.demonstrations)]
        return [sum(rows[i * work.sft_batch : (i + 1) * work.sft_batch]) for i in range(STEPS)]
    if stage == "reward":
        rows = [sum(length(r["prompt"], c) for c in r["completions"]) for r in work.rows_in_order(work.comparisons)]
        return [sum(rows[i * work.reward_batch : (i + 1) * work.reward_batch]) for i in range(STEPS)]
    same = {"pretrain": work.pretrain_batch * work.size.positions, "generate": work.generate_batch * work.new_tokens}
    return [same[stage]] * STEPS if stage in same else None


def check(contender: str, stage: str, work: Work, scratch: Path) -> None:
    tokens = tokens_of(contender, stage, work, scratch)
    expected = expected_tokens(stage, work)
    if expected is not None:
        assert tokens == expected
    else:
        prompts = [len(Tokenizer.load(work.tokenizer).encode(row["prompt"])) for row in work.rows(work.prompts)]
        shortest, longest = work.ppo_batch * (min(prompts) + 1), work.ppo_batch * (max(prompts) + work.ppo_new_tokens)
        assert all(shortest <= count <= longest for count in tokens)


@pytest.mark.parametrize(("contender", "stage"), OWN)
def test_contender_works_on_the_rows_of_the_stage(contender: str, stage: str, work: Work, tmp_path: Path) -> None:
    check(contender, stage, work, tmp_path)


@pytest.mark.parametrize(("contender", "stage"), PEERS)
def test_peer_works_on_the_same_rows(contender: str, stage: str, work: Work, tmp_path: Path) -> None:
    if not installed(contender):
        pytest.skip(f"{contender} is not installed, or not with accelerate and datasets")
    check(contender, stage, work, tmp_path)


def test_contender_process_reports_time_tokens_and_memory(work: Work) -> None:
    call = [sys.executable, "-m", "benchmarks.stages.contender", "plain", "generate", "--steps", "1"]
    done = subprocess.run([*call, "--work", work.to_json()], cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["tokens"] == [work.generate_batch * work.new_tokens]
    assert report["peak_bytes"] >= report["import_bytes"] > 2**20


def test_every_case_is_work_that_can_be_sent_to_a_process(work: Work) -> None:
    for stage in STAGES:
        for _, changes in CASES[stage]:
            changed = replace(work, **changes)
            assert Work.from_json(changed.to_json()) == changed


def test_ratios_compare_neighbouring_rounds() -> None:
    # The machine is twice as slow in the second round for both: every ratio stays 3.
    ours = [Round([1.0, 1.0], [300, 300], 200, 100), Round([2.0, 2.0], [300, 300], 200, 100)]
    rival = [Round([1.0, 1.0], [100, 100], 500, 300), Round([2.0, 2.0], [100, 100], 500, 300)]
    found = against(ours, rival)
    assert found == {
        "speedup": 3.0, "speedup_min": 3.0, "speedup_max": 3.0, "memory_share": 0.4, "memory_share_above_import": 0.5,
    }
    assert summary(ours)["tokens_per_second"] == {"median": 225.0, "p10": 150.0, "p90": 300.0}


def test_goals_are_judged_in_print(capsys: pytest.CaptureFixture[str]) -> None:
    ours, rival = [Round([1.0], [300], 2**20 * 30, 2**20 * 20)], [Round([1.0], [100], 2**20 * 60, 2**20 * 40)]
    versus = {"trl": {**against(ours, rival), "goal": 3.0}, "plain": {**against(ours, rival), "goal": 3.1}}
    figures = {"ours": summary(ours), "trl": summary(rival), "plain": summary(rival)}
    show([{"case": "a case", "contenders": figures, "rivals": versus}])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert lines[1] == ["ours", "300", "300..300", "30", "10"]
    assert lines[2] == ["trl", "100", "100..100", "3.00x", "3.00..3.00", "60", "20", "0.50x", "3x", "reached"]
    assert lines[3][-2:] == ["3.1x", "missed"]


def test_rates_of_different_work_are_not_compared() -> None:
    rounds = {"ours": [Round([1.0], [100], 1, 1)], "plain": [Round([1.0], [103], 1, 1)]}
    with pytest.raises(SystemExit, match="equally many tokens"):
        check_tokens("sft", rounds)
    check_tokens("ppo", rounds)
