"""What a run keeps beside its metrics: samples that change nothing and resume to the byte, costs, findings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.diagnosis import read_findings
from instructgpt_fast.model import GPTConfig
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.train import account, ppo, train
from instructgpt_fast.train.account import measure_ceiling
from instructgpt_fast.train.flops import forward_flops
from instructgpt_fast.train.metrics import read_metrics
from instructgpt_fast.train.records import Ceiling, RunRecord, read_run, read_samples
from instructgpt_fast.train.samples import pieces_of

from .material import Material
from .ppo_runs import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("records"))


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if not k.startswith("time/") and "per_second" not in k} for r in records]


def test_samples_change_nothing_and_a_resumed_run_has_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"total_episodes": 40, "save_steps": 2, "whiten_scores": True, "ptx_data": str(world.text),
               "ptx_length": 16, "ptx_ratio": 0.5}
    straight = world.run("straight", **options)
    without = world.run("without", record_samples=0, diagnose=False, **options)
    assert weights(straight.checkpoint) == weights(without.checkpoint)
    assert timeless(read_metrics(straight.run_dir)) == timeless(read_metrics(without.run_dir))
    assert not (without.run_dir / "samples.jsonl").exists()
    assert read_findings(without.run_dir) is None

    # The process dies in iteration 4, after the checkpoint of iteration 2 and more metrics.
    update = ppo.update

    def dying(config: Any, parts: Any, experience: Any, iteration: int, run_dir: Path) -> dict[str, float]:
        if iteration == 4:
            raise RuntimeError("the power went out")
        return update(config, parts, experience, iteration, run_dir)

    monkeypatch.setattr(ppo, "update", dying)
    with pytest.raises(RuntimeError, match="the power went out"):
        world.run("parted", **options)
    monkeypatch.undo()
    # It also died while it wrote the samples that belong to that checkpoint.
    samples = world.folder / "parted" / "samples.jsonl"
    lines = samples.read_text(encoding="utf-8").splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == [0] * 4 + [2] * 4
    samples.write_text("".join(lines[:5]) + '{"step": 2, "pro', encoding="utf-8")
    resumed = world.run("parted", resume_from_checkpoint="latest", **options)
    assert weights(resumed.checkpoint) == weights(straight.checkpoint)
    assert timeless(read_metrics(resumed.run_dir)) == timeless(read_metrics(straight.run_dir))
    assert samples.read_bytes() == (straight.run_dir / "samples.jsonl").read_bytes()
    assert read_findings(resumed.run_dir) == read_findings(straight.run_dir)


def test_samples_say_what_the_models_say(world: World) -> None:
    result = world.run("said", total_episodes=16, record_samples=3, save_steps=50, gamma=1.0, lam=1.0, kl_coef=0.5)
    samples = read_samples(result.run_dir)
    assert [(sample.step, sample.prompt) for sample in samples] == [
        (step, prompt) for step in (0, 2) for prompt in ("the cat", "the dog ran", "a man")
    ]
    first, last = samples[:3], samples[3:]
    assert [sample.seed for sample in first] == [sample.seed for sample in last]
    assert all(abs(kl) < 1e-5 for sample in first for kl in sample.kl or [])
    assert any(abs(kl) > 1e-5 for sample in last for kl in sample.kl or [])
    policy = load_model(world.policy)
    for sample in samples:
        assert sample.kl is not None
        assert sample.advantages is not None
        assert sample.values is not None
        assert sample.score is not None
        length = len(sample.token_ids)
        each = (sample.tokens, sample.logprobs, sample.kl, sample.advantages, sample.values)
        assert [len(numbers) for numbers in each] == [length] * 5
        text = policy.tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        assert "".join(sample.tokens) == text
        assert sample.finished == (sample.token_ids[-1] == policy.tokenizer.eos_id)
        # With lambda 1 the first advantage is the whole reward less the first value.
        penalty = 0.0 if sample.finished else 1.0
        whole = sample.score - penalty - 0.5 * sum(sample.kl)
        assert sample.advantages[0] + sample.values[0] == pytest.approx(whole, abs=1e-4)
    prompt = policy.tokenizer.encode(first[0].prompt)
    with torch.no_grad():
        tokens = torch.tensor([prompt + first[0].token_ids])
        logits = policy.model(tokens)[0] @ policy.model.lm_weight.T
    said = logits.log_softmax(-1)[len(prompt) - 1:-1].gather(1, tokens[0, len(prompt):, None])[:, 0]
    assert first[0].logprobs == pytest.approx(said.tolist(), abs=1e-4)


def test_stages_that_write_keep_answers_before_and_after(material: Material, base: str, tmp_path: Path) -> None:
    sft = train("sft", init=base, data=material.demonstrations, max_steps=2, output_dir=str(tmp_path / "sft"),
                progress=False, record_samples=2, train_batch_size=4, learning_rate=1e-2)
    again = train("sft", init=base, data=material.demonstrations, max_steps=2, output_dir=str(tmp_path / "off"),
                  progress=False, record_samples=0, train_batch_size=4, learning_rate=1e-2)
    assert weights(sft.checkpoint) == weights(again.checkpoint), "dropout draws the same with samples and without"
    samples = read_samples(sft.run_dir)
    assert [sample.step for sample in samples] == [0, 0, 2, 2]
    assert samples[0].prompt == samples[2].prompt
    assert samples[0].kl is None
    assert not (again.run_dir / "samples.jsonl").exists()
    pretrained = train("pretrain", data=material.text, tokenizer=material.tokenizer_path, model="tiny", n_positions=32,
                       d_model=32, max_steps=2, output_dir=str(tmp_path / "base"), progress=False)
    openings = [sample.prompt for sample in read_samples(pretrained.run_dir)]
    assert len(openings) == 8
    assert openings[0].startswith("The ")
    done = (sft.run_dir / "samples.jsonl").read_bytes()
    train("sft", init=base, data=material.demonstrations, max_steps=2, output_dir=str(tmp_path / "sft"),
          progress=False, record_samples=2, train_batch_size=4, learning_rate=1e-2, resume_from_checkpoint="latest")
    assert (sft.run_dir / "samples.jsonl").read_bytes() == done, "a finished run gives no answers twice"


def test_a_run_records_what_it_costs(
    material: Material, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"init": base, "data": material.demonstrations, "max_steps": 2, "output_dir": str(tmp_path / "run"),
               "progress": False, "train_batch_size": 4}
    result = train("sft", **options)
    record = read_run(result.run_dir)
    assert record is not None
    assert (record.stage, record.unit, record.device, record.dtype) == ("sft", "tokens", "cpu", "float32")
    model = load_model(result.checkpoint).model
    assert record.parameters == {"model": sum(p.numel() for p in model.parameters())}
    # Between the layers alone and all of 6 N with the output layer for every token, and some attention.
    layers = model.config.n_layer * 12 * model.config.d_model**2
    most = layers + model.config.d_model * (model.config.vocab_size + 2 * model.config.n_layer * 48)
    assert 6 * layers < (record.flops_per_unit or 0) < 6 * most
    assert record.ceiling is None, "a run of a second pays for no ceiling"
    assert record.ended is not None
    assert record.ended >= record.started
    train("sft", **options, resume_from_checkpoint="latest")
    assert read_run(result.run_dir) == record, "a finished run keeps the record of its work"
    monkeypatch.setattr(account, "WORTH_MEASURING", 0.0)
    monkeypatch.setattr(account, "LONG_PRODUCT", 0.0)
    measured = read_run(train("sft", **options, overwrite_output_dir=True).run_dir)
    assert measured is not None
    assert measured.ceiling is not None
    assert measured.ceiling.flops_per_second > 1e6
    assert measured.ceiling.how == "[256, 256] matrix product in float32 on cpu, 1 threads"


def test_the_ceiling_grows_its_matrices_until_one_product_is_long() -> None:
    found = measure_ceiling(torch.device("cpu"), torch.float32, seconds=1e-3)
    side = int(found.how[1:found.how.index(",")])
    assert 256 <= side <= 4096
    assert math.isfinite(found.flops_per_second)


def test_flops_by_hand() -> None:
    shape = GPTConfig(vocab_size=100, n_positions=16, n_layer=2, n_head=2, d_model=8, band_width=3)
    # 2 layers of 12 d^2 weights; token t sees t keys in layer 0 and at most 3 in layer 1; 4 d a pair.
    pairs = (1 + 2 + 3 + 4 + 5) + (1 + 2 + 3 + 3 + 3)
    assert forward_flops(shape, [5], 0) == 2 * 2 * 12 * 64 * 5 + 4 * 8 * pairs
    assert forward_flops(shape, [5], 4) - forward_flops(shape, [5], 0) == 2 * 8 * 100 * 4
    assert forward_flops(shape, [5, 5], 0) == 2 * forward_flops(shape, [5], 0)
    assert forward_flops(shape, [2], 0) == 2 * 2 * 12 * 64 * 2 + 4 * 8 * 2 * 3, "shorter than the band"


def test_files_of_other_versions_are_read(tmp_path: Path) -> None:
    assert read_run(tmp_path) is None
    assert read_samples(tmp_path) == []
    (tmp_path / "run.json").write_text('{"stage": "sft", "started": "2026-01-01", "colour": "blue"}', encoding="utf-8")
    assert read_run(tmp_path) == RunRecord(stage="sft", started="2026-01-01")
    RunRecord(stage="ppo", started="now", ceiling=Ceiling(1e9, "how")).write(tmp_path)
    assert read_run(tmp_path) == RunRecord(stage="ppo", started="now", ceiling=Ceiling(1e9, "how"))
    sample = {"step": 1, "prompt": "a", "seed": 2, "tokens": ["b"], "token_ids": [3], "logprobs": [-1.0],
              "finished": False, "colour": "blue"}
    text = json.dumps(sample) + "\n" + '{"step": 2, "unfin'
    (tmp_path / "samples.jsonl").write_text(text, encoding="utf-8")
    assert [found.step for found in read_samples(tmp_path)] == [1]


def test_pieces_join_to_the_text_where_a_character_takes_several_tokens() -> None:
    tokenizer = Tokenizer.train(["plain text only"], 300, min_frequency=2)
    tokens = [*tokenizer.encode("a é 日"), tokenizer.eos_id]
    pieces = pieces_of(tokenizer, tokens)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == "a é 日"
    assert "" in pieces[:-1], "the first byte of a character has no text of its own"
    assert "".join(pieces_of(tokenizer, tokens[:-2])).endswith("\ufffd")


def test_an_unfinished_run_still_tells_what_it_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any) -> dict[str, float]:
        raise RuntimeError("the power went out")

    monkeypatch.setattr(ppo, "update", stopped)
    with pytest.raises(RuntimeError, match="the power went out"):
        world.run("stopped")
    assert read_findings(world.folder / "stopped") == []
    record = read_run(world.folder / "stopped")
    assert record is not None
    assert record.flops_per_unit is None
