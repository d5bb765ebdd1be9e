"""A folder of transformers, judged by transformers: equal logits, scores, ids; and stages start from it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.model import GPT, ScalarModel
from instructgpt_fast.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="transformers is the judge")

from .foreign import EOS, TOKENS, edit, gpt2, judged_logits, own_logits, shaken, write_tokenizer  # noqa: E402

NEW = 4  # PAD and three roles


def agrees(folder: Path, judge: Any, atol: float = 1e-5, **options: Any) -> Any:
    """Load the folder and compare all logits of random tokens."""
    loaded = load_model(folder, **options)
    config = loaded.model.config
    tokens = torch.randint(TOKENS, (3, config.n_positions), generator=torch.Generator().manual_seed(1))
    judged = judged_logits(judge, tokens)[..., :TOKENS]
    assert judged.abs().max() > 1.0  # the comparison is of numbers that matter
    assert torch.allclose(own_logits(loaded.model.float(), tokens)[..., :TOKENS], judged, rtol=0, atol=atol)
    return loaded


@pytest.mark.parametrize("shape", [
    {},
    {"n_layer": 1, "n_head": 1, "n_embd": 16},
    {"n_layer": 3, "n_inner": 40, "layer_norm_epsilon": 1e-3, "activation_function": "gelu_pytorch_tanh"},
    {"n_embd": 60, "n_head": 3, "n_positions": 33, "reorder_and_upcast_attn": True},
    {"vocab_size": TOKENS + 58},
], ids=["plain", "narrow", "other numbers", "odd", "padded vocabulary"])
def test_logits_equal_transformers(tmp_path: Path, shape: dict[str, Any]) -> None:
    judge = gpt2(tmp_path, **shape)
    loaded = agrees(tmp_path, judge)
    assert (loaded.stage, loaded.prompt_format, loaded.path) == ("imported", "raw", tmp_path)
    assert loaded.model.config.vocab_size == loaded.tokenizer.vocab_size == TOKENS + NEW
    assert loaded.tokenizer.eos_id == TOKENS - 1


def test_shards_bare_names_and_old_masks(tmp_path: Path) -> None:
    judge = gpt2(tmp_path, save={"max_shard_size": "20KB"})
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    agrees(tmp_path, judge)

    bare = tmp_path / "bare"
    judge.transformer.save_pretrained(bare)
    write_tokenizer(bare)
    from safetensors.torch import load_file, save_file

    tensors = load_file(bare / "model.safetensors")
    assert "wte.weight" in tensors
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 48, 48, dtype=torch.bool).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    save_file(tensors, bare / "model.safetensors")
    agrees(bare, judge)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_and_widened(tmp_path: Path, dtype: torch.dtype) -> None:
    judge = gpt2(tmp_path, dtype=dtype)
    assert next(load_model(tmp_path).model.parameters()).dtype == dtype
    agrees(tmp_path, judge, dtype=torch.float32)


def test_new_tokens_get_the_mean_and_little_probability(tmp_path: Path) -> None:
    judge = gpt2(tmp_path, vocab_size=TOKENS + 10)
    model = load_model(tmp_path).model
    assert isinstance(model, GPT)
    old = judge.transformer.wte.weight.detach()[:TOKENS]  # what pads the vocabulary is not averaged
    assert torch.equal(model.wte.weight[:TOKENS], old)
    for row in model.wte.weight[TOKENS:]:
        assert torch.allclose(row, old.mean(0), rtol=0, atol=1e-6)
    tokens = torch.randint(TOKENS, (8, 48))
    largest = own_logits(model, tokens).softmax(-1)[..., TOKENS:].max()
    assert largest <= (1 + 1e-5) / (TOKENS + NEW)


def test_a_reward_model(tmp_path: Path) -> None:
    judge = gpt2(tmp_path, kind="GPT2ForSequenceClassification", num_labels=1, pad_token_id=0)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.model, ScalarModel)
    tokens = torch.randint(1, TOKENS, (5, 20))
    with torch.no_grad():
        assert torch.allclose(loaded.model(tokens)[:, -1], judge(tokens).logits[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layers, window", [(4, 7), (3, 1), (1, 5)])
def test_gpt_neo(tmp_path: Path, layers: int, window: int) -> None:
    torch.manual_seed(0)
    kinds = [[["local" if layer % 2 else "global"], 1] for layer in range(layers)]
    config = transformers.GPTNeoConfig(
        vocab_size=TOKENS, max_position_embeddings=40, hidden_size=24, num_layers=layers, num_heads=3,
        attention_types=kinds, window_size=window, intermediate_size=50, bos_token_id=0, eos_token_id=TOKENS - 1,
    )
    judge = shaken(transformers.GPTNeoForCausalLM(config))
    judge.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    loaded = agrees(tmp_path, judge, atol=2e-5)
    assert loaded.model.config.band_width == (window if layers > 1 else None)


def test_tokenizers_of_every_layout_are_one(tmp_path: Path) -> None:
    gpt2(tmp_path)
    pair = load_model(tmp_path).tokenizer
    one = tmp_path / "one"
    shutil.copytree(tmp_path, one)
    transformers.GPT2Tokenizer.from_pretrained(tmp_path).save_pretrained(one)
    (one / "vocab.json").unlink()
    assert (one / "tokenizer.json").exists()
    assert load_model(one).tokenizer.fingerprint == pair.fingerprint

    edit(one, "tokenizer_config.json", pad_token=EOS, eos_token={"content": EOS})
    loaded = load_model(one).tokenizer
    assert (loaded.pad_token, loaded.fingerprint) == ("<|pad|>", pair.fingerprint)
    text = "the thing in <|endoftext|> a\u00e9\r\n"
    assert loaded.encode(text) == pair.encode(text) and loaded.decode(loaded.encode(text)) == text


def test_tokens_behind_the_vocabulary_keep_their_rows(tmp_path: Path) -> None:
    judge = gpt2(tmp_path, vocab_size=TOKENS + 2)
    edit(tmp_path, "added_tokens.json", **{"<|user|>": TOKENS})
    edit(tmp_path, "special_tokens_map.json", pad_token="[PAD]", eos_token=EOS)
    decoder = {str(TOKENS + 1): {"content": "[PAD]", "special": True}}
    edit(tmp_path, "tokenizer_config.json", added_tokens_decoder=decoder)
    loaded = load_model(tmp_path)
    assert (loaded.tokenizer.role_ids["user"], loaded.tokenizer.pad_id) == (TOKENS, TOKENS + 1)
    assert loaded.tokenizer.vocab_size == TOKENS + 4
    assert isinstance(loaded.model, GPT)
    assert torch.equal(loaded.model.wte.weight[: TOKENS + 2], judge.transformer.wte.weight)


def test_the_imported_checkpoint_is_the_folder(tmp_path: Path) -> None:
    gpt2(tmp_path / "theirs")
    path = igf.import_hugging_face(tmp_path / "theirs", tmp_path / "ours", dtype="bf16")
    ours, theirs = load_model(path), load_model(tmp_path / "theirs", dtype=torch.bfloat16)
    assert ours.tokenizer.fingerprint == theirs.tokenizer.fingerprint
    assert (ours.stage, ours.prompt_format) == ("imported", "raw")
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor)


def test_another_chat_template_is_not_followed_and_says_so(tmp_path: Path) -> None:
    gpt2(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(tmp_path).prompt_format == "raw"
    edit(tmp_path, "tokenizer_config.json", chat_template="{{ messages }}")
    with pytest.warns(UserWarning, match="the chat template of .* is not followed"):
        assert load_model(tmp_path).prompt_format == "raw"


def test_two_ends_of_text_are_pointed_out(tmp_path: Path) -> None:
    gpt2(tmp_path)
    edit(tmp_path, eos_token_id=3)
    with pytest.warns(UserWarning, match=r"ends texts with id \(3,\), the tokenizer with <\|endoftext\|> = 261"):
        load_model(tmp_path)


def test_a_snapshot_of_the_cache(tmp_path: Path) -> None:
    """Hugging Face's cache keeps files under blobs and links to them from snapshots/<revision>."""
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    blobs.mkdir()
    judge = gpt2(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    agrees(snapshot, judge)


def test_sft_and_generation_start_from_the_folder(tmp_path: Path) -> None:
    gpt2(tmp_path / "base")
    lines = [{"prompt": "the thing", "response": " in a"}, {"prompt": "a", "response": "the"}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = igf.train(
        "sft", init=str(tmp_path / "base"), data=str(tmp_path / "data.jsonl"), output_dir=str(tmp_path / "sft"),
        max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=1, progress=False,
    )
    tuned = load_model(result.checkpoint)
    assert (tuned.stage, tuned.prompt_format) == ("sft", "dialogue")
    base = load_model(tmp_path / "base")
    assert not torch.equal(tuned.model.state_dict()["wpe.weight"], base.model.state_dict()["wpe.weight"])
    answer = igf.generate(tmp_path / "base", "the", max_new_tokens=5, temperature=0.0)
    assert isinstance(answer, str)
    tokenizer = Tokenizer.load(tmp_path / "base")
    assert tokenizer.fingerprint == base.tokenizer.fingerprint
