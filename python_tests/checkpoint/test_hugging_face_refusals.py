"""Folders that nobody vouches for: each bad one is a CheckpointError with its place, and none runs code."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import instructgpt_fast as igf
from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.errors import CheckpointError

pytest.importorskip("transformers", reason="transformers makes the folders")

from .foreign import TOKENS, edit, gpt2

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    gpt2(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def refused(folder: Path, *words: str) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_model(folder)
    message = str(raised.value)
    assert str(folder) in message
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize("name, value", [
    ("model_type", "llama"), ("model_type", None), ("model_type", ["gpt2"]),
    ("architectures", ["GPT2DoubleHeadsModel"]), ("architectures", "GPT2LMHeadModel"), ("architectures", [1]),
    ("activation_function", "gelu"), ("activation_function", "relu"), ("activation_function", 3),
    ("scale_attn_weights", False), ("scale_attn_by_inverse_layer_idx", True), ("add_cross_attention", True),
    ("scale_attn_weights", 1), ("tie_word_embeddings", False), ("is_encoder_decoder", True),
    ("pruned_heads", {"0": [1]}), ("quantization_config", {"bits": 4}), ("auto_map", {"AutoModel": "evil.Model"}),
    ("n_layer", -1), ("n_layer", 0), ("n_layer", 10**9), ("n_layer", 10**30), ("n_layer", 2.0), ("n_layer", True),
    ("n_embd", 2**31), ("n_embd", -32), ("n_embd", "32"), ("n_head", 0), ("n_positions", 10**12), ("n_inner", -5),
    ("vocab_size", 0), ("layer_norm_epsilon", 0), ("layer_norm_epsilon", -1e-5), ("layer_norm_epsilon", float("nan")),
    ("layer_norm_epsilon", float("inf")), ("layer_norm_epsilon", "1e-5"),
])
def test_a_value_that_is_not_served_is_named(folder: Path, name: str, value: Any) -> None:
    edit(folder, **{name: value})
    refused(folder, name, "config.json")


def test_heads_that_do_not_divide_the_width(folder: Path) -> None:
    edit(folder, n_head=5)
    refused(folder, "d_model must be a multiple of n_head")


@pytest.mark.parametrize("labels", [{"id2label": {"0": "a", "1": "b"}}, {"num_labels": 3}, {}])
def test_a_classifier_of_several_labels(folder: Path, labels: dict[str, Any]) -> None:
    edit(folder, architectures=["GPT2ForSequenceClassification"], **labels)
    refused(folder, "must have one label to be a reward model")


@pytest.mark.parametrize("changes, word", [
    ({"n_layer": 3}, "12 missing"), ({"n_layer": 1}, "12 unexpected"), ({"n_embd": 64}, "must be"),
    ({"n_inner": 7}, "mlp.c_fc"), ({"vocab_size": 1000}, "wte.weight"), ({"n_positions": 1 << 30}, "wpe.weight"),
    ({"n_layer": 9_999}, "missing"), ({"n_embd": 1 << 30, "n_head": 1}, "must be (262, 1073741824)"),
])
def test_a_shape_that_the_weights_do_not_have(folder: Path, changes: dict[str, Any], word: str) -> None:
    edit(folder, **changes)
    refused(folder, word)


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 200_000, b'{"n_layer": 1' + b"0" * 5000 + b"}",
])
def test_a_config_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json")


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        key = "lm_head.weight" if name == "lm_head" else f"transformer.{name}"
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors")


def test_tensors_that_are_wrong(folder: Path, good: Path) -> None:
    def again() -> None:
        shutil.copy(good / "model.safetensors", folder)

    cases: list[tuple[dict[str, torch.Tensor | None], tuple[str, ...]]] = [
        ({"ln_f.bias": None}, ("1 missing", "ln_f.bias")),
        ({"h.0.extra": torch.ones(2)}, ("1 unexpected", "h.0.extra")),
        ({"wpe.weight": torch.ones(47, 32)}, ("wpe.weight", "(48, 32)", "(47, 32)")),
        ({"wpe.weight": torch.ones(48, 32, 1)}, ("wpe.weight", "(48, 32)")),
        ({"wpe.weight": torch.full((48, 32), torch.nan)}, ("wpe.weight", "finite")),
        ({"wpe.weight": torch.ones(48, 32, dtype=torch.float64)}, ("wpe.weight", "F32, F16, BF16", "F64")),
        ({"wpe.weight": torch.ones(48, 32, dtype=torch.int8)}, ("wpe.weight", "I8")),
        ({"lm_head": torch.ones(TOKENS, 32)}, ("lm_head.weight", "untied embeddings are not served")),
    ]
    for changes, words in cases:
        rewrite(folder, **changes)
        refused(folder, *words)
        again()
    load_model(folder)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "a long header", "text"])
def test_damaged_weights(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({
        "truncated": content[:-100], "emptied": b"", "a long header": b"\xff" * 7 + b"\x7f" + content[8:],
        "text": b"{}" * 100,
    }[damage])
    refused(folder, "model.safetensors", "copy it again")


def shards(folder: Path) -> dict[str, str]:
    """Split the weights into two files and return the index's map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, folder / file)
    return {name: file for file, half in halves.items() for name in half}


def test_indices_that_lie(folder: Path) -> None:
    places = shards(folder)
    edit(folder, INDEX, weight_map=places)
    load_model(folder)
    first = min(places)
    cases: list[tuple[Any, str]] = [
        ({**places, first: "../outside.safetensors"}, "not followed"),
        ({**places, first: "/etc/passwd.safetensors"}, "not followed"),
        ({**places, first: "..\\outside.safetensors"}, "not followed"),
        ({**places, first: "sub/a.safetensors"}, "not followed"),
        ({**places, first: "a.bin"}, "must name safetensors files, got 'a.bin'"),
        ({**places, first: "c.safetensors"}, "c.safetensors must be a file, got nothing"),
        ({**places, first: "b.safetensors"}, "which model.safetensors.index.json does not say"),
        ({**places, "transformer.h.7.x": "a.safetensors"}, "that they lack: ['transformer.h.7.x']"),
        ({name: file for name, file in places.items() if name != first}, "which model.safetensors.index.json does not"),
        ({**places, first: 3}, "under 'weight_map'"), ([], "under 'weight_map'"), (None, "under 'weight_map'"),
    ]
    for weight_map, word in cases:
        edit(folder, INDEX, weight_map=weight_map)
        refused(folder, word)


def test_links_that_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "vocab.json", "config.json"):
        outside = tmp_path / name
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)
        refused(folder, name, "must lie in its folder, got a link to")
        (folder / name).unlink()
        shutil.move(outside, folder / name)
    (folder / "elsewhere").mkdir()
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    load_model(folder)  # a link inside is as good as a copy


def test_what_is_no_file(folder: Path) -> None:
    (folder / "merges.txt").unlink()
    os.mkfifo(folder / "merges.txt")  # opening it would wait for ever
    refused(folder, "merges.txt", "something that is no plain file")


def test_formats_that_can_run_code_are_left_alone(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Bomb()}, folder / "pytorch_model.bin")
    message = refused(folder, "got only pytorch_model.bin", "save_pretrained")
    assert "run code" in message and not (tmp_path / "ran").exists()
    (folder / "pytorch_model.bin").rename(folder / "tf_model.h5")
    refused(folder, "model.safetensors.index.json, got only tf_model.h5")
    (folder / "tf_model.h5").unlink()
    refused(folder, "got neither")


@pytest.mark.parametrize("file, changes, word", [
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "auto_map"),
    ("tokenizer_config.json", {"eos_token": "</s>"}, "no end-of-text token '</s>'"),
    ("added_tokens.json", {"<x>": TOKENS + 5}, "must follow the vocabulary"),
    ("added_tokens.json", {"<x>": "1"}, "must map tokens to ids"),
    ("added_tokens.json", {"<x>": TOKENS}, f"got {TOKENS} rows and a token with id {TOKENS}"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"0": 5}}, "added_tokens_decoder"),
    ("vocab.json", {"far": 4_000_000_000}, "ids must be below 16,777,216"),
    ("vocab.json", {"far": TOKENS + 1}, "ids with gaps"),
    ("vocab.json", {"far": -1}, "must be one object from token to id"),
])
def test_tokenizers_that_cannot_be_used(folder: Path, file: str, changes: dict[str, Any], word: str) -> None:
    edit(folder, file, **changes)
    refused(folder, word)


def test_missing_and_damaged_tokenizers(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}}))
    refused(folder, "tokenizer.json")
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").write_text("x y z\n")
    refused(folder, "merges.txt:1")
    (folder / "vocab.json").unlink()
    refused(folder, "cannot read the file")


@pytest.mark.parametrize("types", [
    [[["local", "global"], 1]], [[["global", "local"], 10**18]], [[["global"] * 1000, 10**18]] * 50, "x", [[1, 2]],
    [[["global", "local"], -1]], [[["global"], "2"]], [[[], 10**18]], 7, [[{"global": 1}, 2]],
])
def test_layers_of_gpt_neo_in_another_order(folder: Path, types: Any) -> None:
    edit(folder, model_type="gpt_neo", architectures=["GPTNeoForCausalLM"], num_layers=2, hidden_size=32, num_heads=4,
         max_position_embeddings=48, attention_types=types)
    refused(folder, "attention_types")


@pytest.mark.parametrize("lack", [
    MemoryError("Cannot allocate memory (os error 12)"), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
])
def test_a_model_larger_than_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, lack: Exception) -> None:
    def none_left(*given: Any, **options: Any) -> Any:
        raise lack

    monkeypatch.setattr(torch, "empty", none_left)
    assert str(lack) in refused(folder, "must fit into memory", "half precision")


def test_where_an_import_may_go(folder: Path, tmp_path: Path) -> None:
    path = igf.import_hugging_face(folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="ours must be new or an empty folder"):
        igf.import_hugging_face(folder, path)
    with pytest.raises(CheckpointError, match=r"must be a folder with Hugging Face's config\.json, got a checkpoint"):
        igf.import_hugging_face(path, tmp_path / "again")
    with pytest.raises(CheckpointError, match=r"none must be a folder .* got nothing"):
        igf.import_hugging_face(tmp_path / "none", tmp_path / "again")
    with pytest.raises(CheckpointError, match="must be a checkpoint or a run directory"):
        load_model(tmp_path / "none")
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError):  # a damaged checkpoint of this package is not taken for another's folder
        load_model(path)


def test_random_damage_never_gets_past_checkpoint_errors(folder: Path, good: Path) -> None:
    """A byte changed anywhere: either the folder still loads, or the error is ours."""
    generator = torch.Generator().manual_seed(3)
    kinds = {"loads": 0, "refused": 0}
    for _ in range(60):
        for name in ("config.json", "vocab.json", "merges.txt", "model.safetensors"):
            content = bytearray((good / name).read_bytes())
            reach = min(len(content), 2000)  # in the weights: the header
            place = int(torch.randint(reach, (1,), generator=generator))
            content[place] = int(torch.randint(32, 127, (1,), generator=generator))
            (folder / name).write_bytes(content)
            try:
                load_model(folder)
                kinds["loads"] += 1
            except CheckpointError:
                kinds["refused"] += 1
            shutil.copy(good / name, folder)
    assert min(kinds.values()) > 0, kinds
