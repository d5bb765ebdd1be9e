"""The generation benchmarks: loads and weights are what they say, contenders agree, and disagreement stops a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.generation.compare import (
    TIE,
    available,
    check_answers,
    check_lengths,
    compare_load,
    priority,
    running,
)
from benchmarks.generation.contender import Contender
from benchmarks.generation.load import Load, heavy_tailed, size_name
from benchmarks.generation.ours import Ours
from benchmarks.generation.weights import EOS, our_model, transformers_model, write_weights
from benchmarks.stages.compare import Round
from benchmarks.stages.work import Size

TINY = Size(64, layers=2, width=32, heads=2, positions=64)
EQUAL = Load(3, 3, (4, 4), (6, 6))
MIXED = Load(6, 2, (3, 20), (2, 12))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generation") / "weights.safetensors"
    write_weights(path, TINY)
    return path


class Judge:
    """Stands for our contender where only the distance of two logits is asked for."""

    def __init__(self, gap: float) -> None:
        self.found, self.asked = gap, []

    def gap(self, tokens: Sequence[int], one: int, other: int) -> float:
        self.asked.append((list(tokens), one, other))
        return self.found


def test_lengths_are_mostly_short_and_the_same_for_everyone() -> None:
    lengths = heavy_tailed((16, 256), 2000, seed=3)
    assert lengths == heavy_tailed((16, 256), 2000, seed=3) != heavy_tailed((16, 256), 2000, seed=4)
    assert min(lengths) == 16 and max(lengths) == 256
    # Of a Pareto distribution of exponent 1: half below twice the least; one in sixteen reaches 16 times the least.
    assert 29 <= statistics.median(lengths) <= 35
    assert 0.045 <= lengths.count(256) / 2000 <= 0.08
    assert heavy_tailed((32, 32), 5, seed=0) == [32] * 5


def test_a_load_travels_to_another_process() -> None:
    load = replace(MIXED, sampled=True, seed=9)
    again = Load.from_json(load.to_json())
    assert again == load and again.prompts(64) == load.prompts(64) and again.limits() == load.limits()
    assert [3 <= len(prompt) <= 20 and min(prompt) >= 2 for prompt in load.prompts(64)] == [True] * 6
    assert MIXED.mixed and not EQUAL.mixed
    assert size_name(TINY) == "2 x 32, vocabulary 64"


def test_transformers_has_the_same_weights(weights: Path) -> None:
    pytest.importorskip("transformers")
    ours, theirs = our_model(weights, TINY), transformers_model(weights, TINY)
    tokens = torch.randint(TINY.vocab, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, atol=2e-5, rtol=0.0)


def test_greedy_text_wanders(weights: Path) -> None:
    _, answers = Ours(weights, TINY).generate(Load(4, 4, (4, 4), (40, 40)), 0)
    assert min(len(set(answer)) for answer in answers) > 3


def test_answers_end_after_the_mean_length(tmp_path: Path) -> None:
    path, mean = tmp_path / "ends.safetensors", 8.0
    write_weights(path, TINY, mean)
    load = Load(200, 32, (4, 4), (56, 56), sampled=True)
    _, answers = Ours(path, TINY).rollout(load, 0)
    assert all(EOS not in answer[:-1] for answer in answers)
    # The mean of 200 lengths with a spread as large as the mean is known to 7 %; the likelihood varies with the text.
    assert 0.6 * mean < statistics.mean(map(len, answers)) < 1.6 * mean


def test_a_contender_in_its_process_answers_call_by_call(weights: Path) -> None:
    with Contender("ours", weights, TINY, threads=1) as contender:
        first, again = contender.call("generate", MIXED, 0), contender.call("generate", MIXED, 1)
        gap = contender.gap([5, 6], 7, 8)
    assert [len(answer) for answer in first.completions] == MIXED.limits()
    assert first.completions == again.completions and first.tokens == sum(MIXED.limits())
    assert first.seconds > 0 and first.peak_bytes > first.import_bytes > 2**20
    model = our_model(weights, TINY)
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([[5, 6]])))[0, -1]
    assert gap == pytest.approx(abs(float(logits[7] - logits[8])), abs=1e-5)


def test_a_contender_that_fails_is_named(weights: Path) -> None:
    with Contender("ours", weights, TINY, threads=1) as contender, pytest.raises(SystemExit, match="ours: the process"):
        contender.call("generate", replace(MIXED, prompt_tokens=(100, 100)), 0)


def test_rivals_give_our_answers_token_by_token(weights: Path) -> None:
    pytest.importorskip("transformers")
    from benchmarks.generation.rivals import Continuous, Transformers

    for load in (EQUAL, MIXED):
        _, ours = Ours(weights, TINY).generate(load, 0)
        for rival in (Transformers, Continuous):
            seconds, theirs = rival(weights, TINY).generate(load, 0)
            assert seconds > 0
            assert check_answers({"ours": ours, rival.__name__: theirs}, load, TINY.vocab, "generate", {}) == 0


def test_sampled_rivals_give_as_many_tokens(weights: Path) -> None:
    pytest.importorskip("transformers")
    from benchmarks.generation.rivals import Continuous, Transformers

    load = replace(MIXED, sampled=True)
    for rival in (Transformers, Continuous):
        _, answers = rival(weights, TINY).generate(load, 0)
        assert [len(answer) for answer in answers] == load.limits()


def test_trl_counts_tokens_up_to_the_end(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from benchmarks.generation.rivals import Trl

    write_weights(tmp_path / "ends.safetensors", TINY, 4.0)
    _, answers = Trl(tmp_path / "ends.safetensors", TINY).rollout(Load(16, 8, (3, 9), (30, 30), sampled=True), 0)
    assert len(answers) == 16 and all(EOS not in answer[:-1] for answer in answers)
    assert min(map(len, answers)) < 30


def test_the_end_of_an_answer_is_its_first_eos() -> None:
    pytest.importorskip("transformers")
    from benchmarks.generation.rivals import until_end

    assert until_end([5, EOS, 7, EOS]) == [5, EOS]
    assert until_end([5, 6]) == [5, 6]


def test_answers_that_differ_stop_the_run() -> None:
    ours = [[5] * limit for limit in MIXED.limits()]
    other = [list(answer) for answer in ours]
    other[2][1] = 6
    far, near = Judge(10 * TIE), Judge(TIE / 10)
    with pytest.raises(SystemExit, match="answer 2 differs from ours at token 1"):
        check_answers({"ours": ours, "rival": other}, MIXED, TINY.vocab, "generate", {"ours": far})
    # The model is asked about the two ids after the prompt and what both agree on.
    assert far.asked == [([*MIXED.prompts(TINY.vocab)[2], 5], 5, 6)]
    assert check_answers({"ours": ours, "rival": other}, MIXED, TINY.vocab, "generate", {"ours": near}) == 1
    # Sampled text comes from other generators.
    drawn = replace(MIXED, sampled=True)
    assert check_answers({"ours": ours, "rival": other}, drawn, TINY.vocab, "generate", {"ours": far}) == 0


@pytest.mark.parametrize("sampled", [False, True])
def test_answers_that_are_too_short_stop_the_run(sampled: bool) -> None:
    load = replace(MIXED, sampled=sampled)
    ours = [[5] * limit for limit in load.limits()]
    with pytest.raises(SystemExit, match=r"rival: answer 5 must have \d+ tokens"):
        check_answers({"ours": ours, "rival": [*ours[:5], ours[5][:-1]]}, load, TINY.vocab, "generate", {})
    with pytest.raises(SystemExit, match="each of 6 requests"):
        check_answers({"ours": ours, "rival": ours[:5]}, load, TINY.vocab, "generate", {})


def test_rollouts_of_other_lengths_are_not_compared() -> None:
    rounds = {"ours": [Round([1.0], [100], 1, 1)], "trl": [Round([1.0], [140], 1, 1)]}
    with pytest.raises(SystemExit, match="about equally long"):
        check_lengths(rounds)
    check_lengths({**rounds, "trl": [Round([1.0], [120], 1, 1)]})


def test_a_comparison_runs_in_turns_and_has_its_shape(tmp_path: Path) -> None:
    calls: list[str] = []
    with running(["ours"], TINY, tmp_path, threads=1) as contenders:

        class Counted:
            """Our contender under two names, who notes when it is called."""

            def __init__(self, name: str) -> None:
                self.name = name

            def call(self, *arguments: Any) -> Any:
                calls.append(self.name)
                return contenders["ours"].call(*arguments)

        both: Any = {name: Counted(name) for name in ("ours", "other")}
        found = compare_load(both, MIXED, TINY.vocab, rounds=2, warmup=1, calls=2)
    assert calls == ["ours", "other", "ours", "ours", "other", "other", "other", "other", "ours", "ours"]
    assert found["useful_tokens"] == sum(MIXED.limits()) and found["ties"] == 0
    assert found["contenders"]["ours"]["steps"] == 4 and found["contenders"]["ours"]["rounds"] == 2
    assert set(found["rivals"]) == {"other"} and found["rivals"]["other"]["speedup"] > 0


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert available(["ours", "transformers", "continuous", "trl"]) == ["ours"]
    assert priority() in ("normal", "real time", "unknown")
