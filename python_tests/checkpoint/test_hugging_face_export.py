"""What is exported, transformers loads: equal logits, scores, ids and greedy text; written whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.checkpoint.hugging_face_bands import _logits
from instructgpt_fast.errors import CheckpointError, ConfigError
from instructgpt_fast.model import GPT, GPTConfig, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="transformers is the judge")

from .foreign import gpt2, judged_logits, own_logits, shaken, write_tokenizer  # noqa: E402

TOKENIZER = Tokenizer.train(["The fox and the dog talk all day; the dog is lazy and the fox is quick. "] * 4, 300)
TALK = [
    {"role": "system", "content": " Be kind.\n\n"}, {"role": "user", "content": "the  fox {{ 7 * 7 }} {% raw %}\t\n"},
    {"role": "assistant", "content": "\u00e9 \U0001f600 "}, {"role": "user", "content": "and the dog?"},
]


def made(kind: Any = GPT, seed: int = 0, size: float = 0.2, prompt_format: Any = "dialogue", **shape: Any) -> Loaded:
    torch.manual_seed(seed)
    config = GPTConfig(**{
        "vocab_size": TOKENIZER.vocab_size, "n_positions": 64, "n_layer": 3, "n_head": 4, "d_model": 32, **shape,
    })
    model = shaken(kind(config), size)
    if kind is ScalarModel:
        model.bias_shift.fill_(-3.25)
    return Loaded(model, TOKENIZER, prompt_format, "ppo", Path("made"))


def judge_of(folder: Path, kind: str = "AutoModelForCausalLM", **options: Any) -> Any:
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(TOKENIZER.vocab_size, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape, loads, atol", [
    ({}, "GPT2LMHeadModel", 1e-5),
    ({"d_ff": 50, "layer_norm_eps": 1e-3, "n_layer": 1}, "GPT2LMHeadModel", 1e-5),
    ({"band_width": 64}, "GPT2LMHeadModel", 1e-5),
    ({"band_width": 3, "n_layer": 1}, "GPT2LMHeadModel", 1e-5),
    # The change of weights may move logits by 1e-4 of their size, which is about 8 here.
    ({"band_width": 5, "n_layer": 4, "d_ff": 70}, "GPTNeoForCausalLM", 1e-4),
    ({"band_width": 1}, "GPTNeoForCausalLM", 1e-4),
], ids=["plain", "other numbers", "band as wide as the context", "one banded layer", "banded", "band of one"])
def test_logits_equal_transformers(tmp_path: Path, shape: dict[str, Any], loads: str, atol: float) -> None:
    ours = made(**shape)
    folder = igf.export_hugging_face(ours, tmp_path / "out")
    judge = judge_of(folder)
    assert type(judge).__name__ == loads
    tokens = random_tokens(2, 64)
    judged = judged_logits(judge, tokens)
    assert judged.abs().max() > 1.0
    assert torch.allclose(own_logits(ours.model, tokens), judged, rtol=0, atol=atol)
    back = load_model(folder)
    assert torch.allclose(own_logits(back.model, tokens), judged, rtol=0, atol=atol)
    assert (back.stage, back.prompt_format) == ("ppo", "dialogue")
    assert back.tokenizer.fingerprint == TOKENIZER.fingerprint


@pytest.mark.parametrize("band_width", [None, 16])
def test_greedy_text_is_the_same_for_200_tokens(tmp_path: Path, band_width: int | None) -> None:
    ours = made(n_positions=256, d_model=64, band_width=band_width, prompt_format="raw")
    folder = igf.export_hugging_face(ours, tmp_path / "out")
    judge, judges_tokenizer = judge_of(folder), transformers.AutoTokenizer.from_pretrained(folder)
    judge.generation_config.eos_token_id = None  # a random model may end at once
    for prompt in ("The fox", "and the lazy dog"):
        given = judges_tokenizer(prompt, return_tensors="pt")
        theirs = judge.generate(**given, max_new_tokens=200, do_sample=False)[0, given["input_ids"].shape[1]:].tolist()
        assert len(theirs) == 200 and len(set(theirs)) > 20
        text = igf.generate(ours, prompt, max_new_tokens=200, temperature=0.0)
        end = theirs.index(TOKENIZER.eos_id) if TOKENIZER.eos_id in theirs else 200
        assert end > 100
        assert text == TOKENIZER.decode(theirs[:end], skip_special_tokens=True)


def test_import_and_export_give_the_same_tensors(tmp_path: Path) -> None:
    gpt2(tmp_path / "theirs")
    first = igf.export_hugging_face(tmp_path / "theirs", tmp_path / "first")
    second = igf.export_hugging_face(first, tmp_path / "second", max_shard_size="10KB")
    theirs, ours = load_file(tmp_path / "theirs" / "model.safetensors"), load_file(first / "model.safetensors")
    assert ours.keys() == theirs.keys()
    rows = len(theirs["transformer.wte.weight"])
    for name, tensor in theirs.items():
        assert torch.equal(ours[name][:rows] if name.endswith("wte.weight") else ours[name], tensor)
    listed = json.loads((second / "model.safetensors.index.json").read_text())
    shards = {file: load_file(second / file) for file in set(listed["weight_map"].values())}
    assert len(shards) > 5 and sorted(shards)[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert listed["metadata"]["total_size"] == sum(t.nbytes for shard in shards.values() for t in shard.values())
    for name, file in listed["weight_map"].items():
        assert torch.equal(shards[file][name], ours[name])
    tokens = random_tokens(1, 20) % rows
    assert torch.equal(judged_logits(judge_of(second), tokens), judged_logits(judge_of(first), tokens))


@pytest.mark.parametrize("turns", [TALK, TALK[1:], TALK[:2], TALK[1:2]])
def test_the_chat_template_gives_our_ids(tmp_path: Path, turns: list[dict[str, str]]) -> None:
    judge = transformers.AutoTokenizer.from_pretrained(igf.export_hugging_face(made(), tmp_path / "out"))
    ids = judge.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ids == TOKENIZER.encode_prompt(turns, "dialogue")
    if turns[-1]["role"] == "user":
        answered = [*turns, {"role": "assistant", "content": " Yes."}]
        ids = judge.apply_chat_template(answered, return_dict=False)
        assert ids == TOKENIZER.encode_dialogue(answered).tokens


@pytest.mark.parametrize("turns", [TALK[2:], [TALK[1], TALK[1]], [TALK[1], TALK[0]], [{"role": "tool", "content": ""}]])
def test_the_chat_template_refuses_what_we_refuse(tmp_path: Path, turns: list[dict[str, str]]) -> None:
    judge = transformers.AutoTokenizer.from_pretrained(igf.export_hugging_face(made(), tmp_path / "out"))
    with pytest.raises(Exception, match="messages: "):
        judge.apply_chat_template(turns)


def test_ids_text_and_names_of_the_tokenizer(tmp_path: Path) -> None:
    ours = made(prompt_format="raw")
    folder = igf.export_hugging_face(ours, tmp_path / "out")
    judge = transformers.AutoTokenizer.from_pretrained(folder)
    text = "The  fox\r\n \u00e9\U0001f600 and\tthe dog "
    assert judge(text)["input_ids"] == TOKENIZER.encode(text)
    assert (judge.eos_token_id, judge.pad_token_id) == (TOKENIZER.eos_id, TOKENIZER.pad_id)
    assert judge.model_max_length == 64 and judge.chat_template is None
    named = [*TOKENIZER.encode(text), TOKENIZER.role_ids["user"], TOKENIZER.eos_id]
    assert judge.decode(named, skip_special_tokens=True) == text
    settings = json.loads((folder / "generation_config.json").read_text())
    assert (settings["eos_token_id"], settings["pad_token_id"]) == (TOKENIZER.eos_id, TOKENIZER.pad_id)


@pytest.mark.parametrize("shape, atol", [({}, 1e-5), ({"band_width": 4}, 1e-4)], ids=["plain", "banded"])
def test_reward_scores_equal_a_classifier_of_one_label(tmp_path: Path, shape: dict[str, Any], atol: float) -> None:
    ours = made(ScalarModel, **shape)
    folder = igf.export_hugging_face(ours, tmp_path / "out")
    judge = judge_of(folder, "AutoModelForSequenceClassification")
    rows = [[*TOKENIZER.encode(text), TOKENIZER.eos_id] for text in ("The fox", "and the lazy dog talk", "x")]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [TOKENIZER.pad_id] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        judged = judge(padded, attention_mask=(padded != TOKENIZER.pad_id).long()).logits.squeeze(1)
        scores = torch.stack([ours.model(torch.tensor([row]))[0, -1] for row in rows])
        back = torch.stack([load_model(folder).model(torch.tensor([row]))[0, -1] for row in rows])
    assert judged.abs().min() > 0.1
    assert torch.allclose(scores, judged, rtol=0, atol=atol) and torch.allclose(back, judged, rtol=0, atol=atol)


def test_a_head_of_bias_alone_cannot_be_told(tmp_path: Path) -> None:
    ours = made(ScalarModel)
    torch.nn.init.zeros_(ours.model.head.weight)
    with pytest.raises(CheckpointError, match="must have a weight that is not zero, got a head of bias alone"):
        igf.export_hugging_face(ours, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype, band_width", [("bf16", None), (torch.float16, None), ("bf16", 5), ("fp16", 5)])
def test_half_precision(tmp_path: Path, dtype: Any, band_width: int | None) -> None:
    ours = made(band_width=band_width, size=0.05)
    folder = igf.export_hugging_face(ours, tmp_path / "out", dtype=dtype)
    judge = judge_of(folder, dtype="auto")
    wanted = torch.float16 if dtype in ("fp16", torch.float16) else torch.bfloat16
    assert judge.dtype == wanted
    tokens = random_tokens(2, 64)
    judged = judged_logits(judge, tokens)
    bound = judged.abs().max() * (0.05 if wanted == torch.bfloat16 else 0.005)
    assert torch.allclose(own_logits(ours.model, tokens), judged, rtol=0, atol=float(bound))


def test_what_measures_an_export_computes_the_model() -> None:
    """A window that its plain forward pass got wrong would be wrong before and after the change of weights alike."""
    ours = made(band_width=5, layer_norm_eps=1e-3)
    tokens = random_tokens(2, 40)
    plain = _logits(ours.model.state_dict(), ours.model.config, tokens, torch.float64, 1 / math.sqrt(8))
    assert torch.allclose(own_logits(ours.model, tokens).double(), plain, rtol=0, atol=2e-5)


def test_weights_that_cannot_be_folded_or_stored_are_refused(tmp_path: Path) -> None:
    ours = made(band_width=5)
    attention = ours.model.h[1].attn.c_attn
    with torch.no_grad():
        attention.weight[16:32] = attention.weight[:16]  # queries of rank one half
    with pytest.raises(CheckpointError, match=r"may move logits by at most 0.0001 of their size, got 0\.\d+ in torch"):
        igf.export_hugging_face(ours, tmp_path / "out")
    with torch.no_grad():
        attention.bias[16:32] = attention.bias[:16]  # and biases within them: exactly solvable
    igf.export_hugging_face(ours, tmp_path / "out")

    plain = made()
    with torch.no_grad():
        plain.model.ln_f.bias[0] = 1e5
    with pytest.raises(CheckpointError, match=r"ln_f.bias must fit into torch.float16"):
        igf.export_hugging_face(plain, tmp_path / "half", dtype="fp16")
    with torch.no_grad():
        plain.model.ln_f.bias[0] = torch.nan
    with pytest.raises(CheckpointError, match=r"ln_f.bias must hold finite numbers"):
        igf.export_hugging_face(plain, tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_an_export_may_go(tmp_path: Path) -> None:
    ours = made()
    (tmp_path / "empty").mkdir()
    folder = igf.export_hugging_face(ours, tmp_path / "empty", max_shard_size=20_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    igf.export_hugging_face(ours, folder)  # an earlier export is replaced, shards and all
    assert [path.name for path in sorted(folder.glob("model*"))] == ["model.safetensors"]

    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"new, empty, or an earlier export, got a folder with notes\.txt"):
        igf.export_hugging_face(ours, folder)
    gpt2(tmp_path / "theirs")
    before = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    with pytest.raises(CheckpointError, match="must be new, empty, or an earlier export"):
        igf.export_hugging_face(ours, tmp_path / "theirs")
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="must be a folder, got a file"):
        igf.export_hugging_face(ours, tmp_path / "file")


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = igf.export_hugging_face(made(), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instructgpt_fast.checkpoint.hugging_face_export.save_tensors", full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        igf.export_hugging_face(made(seed=1), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("options", [{"max_shard_size": size} for size in ("5 parsecs", 0, -1, True, "0GB", 1.5)]
                         + [{"dtype": torch.int8}, {"dtype": torch.float64}])
def test_options_that_are_none(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"export: {next(iter(options))} must be"):
        igf.export_hugging_face(made(), tmp_path / "out", **options)


def test_our_own_prompt_format_survives_a_resave_by_transformers(tmp_path: Path) -> None:
    folder = igf.export_hugging_face(made(), tmp_path / "out")
    judge_of(folder).save_pretrained(tmp_path / "again")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.prompt_format == "dialogue" and again.tokenizer.fingerprint == TOKENIZER.fingerprint
    config = tmp_path / "again" / "config.json"
    content = json.loads(config.read_text())
    del content["instructgpt_fast"]
    config.write_text(json.dumps(content))
    assert load_model(tmp_path / "again").prompt_format == "dialogue"  # by its chat template
    write_tokenizer(tmp_path / "again")  # other files beside tokenizer.json change nothing
    assert load_model(tmp_path / "again").tokenizer.fingerprint == TOKENIZER.fingerprint
