"""Saving and loading: tokenizer.json, GPT-2's two files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from instructgpt_fast.errors import DataError
from instructgpt_fast.tokenizer import Tokenizer
from instructgpt_fast.tokenizer.byte_level import ALPHABET

TEXT = "It was the best of times, it was the worst of times; it's the time. " * 3
TOKENIZER = Tokenizer.train([TEXT], 300)
SAMPLE = "the worst\n\n  of <|user|> times é \U0001f600"


def gpt2_files(directory: Path) -> tuple[Path, Path]:
    """A vocabulary of the 256 bytes, four merges and EOS, in GPT-2's layout."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("e", "s")]
    tokens = [*ALPHABET, *("".join(pair) for pair in merges), "<|endoftext|>"]
    vocab, rules = directory / "vocab.json", directory / "merges.txt"
    vocab.write_text(json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8")
    rules.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    return vocab, rules


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    file = TOKENIZER.save(tmp_path)
    assert file == tmp_path / "tokenizer.json"
    for path in (file, tmp_path, str(tmp_path)):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint == TOKENIZER.fingerprint
        assert loaded.encode(SAMPLE) == TOKENIZER.encode(SAMPLE)
        assert loaded.decode(loaded.encode(SAMPLE)) == SAMPLE


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; create it first"):
        TOKENIZER.save(tmp_path / "none" / "tokenizer.json")


def test_transformers_reads_what_is_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is an optional judge")
    TOKENIZER.save(tmp_path)
    judge = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "the worst\n\n  of times é \U0001f600"
    assert judge.encode(text, add_special_tokens=False) == TOKENIZER.encode(text)
    assert (judge.eos_token_id, judge.pad_token_id) == (TOKENIZER.eos_id, TOKENIZER.pad_id)


def test_gpt2_files(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_gpt2(*gpt2_files(tmp_path))
    assert tokenizer.eos_id == 260  # as stored; PAD and the roles come after it
    assert (tokenizer.pad_id, tokenizer.vocab_size) == (261, 265)
    pieces = [tokenizer.bytes_of(token) for token in tokenizer.encode("the thesis")]
    assert pieces == [b"the", b" the", b"s", b"i", b"s"]
    assert tokenizer.decode(tokenizer.encode(SAMPLE)) == SAMPLE
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ("{", r"vocab.json:1: tokenizer: vocab.json must be JSON"),
        ("[1]", r"vocab.json: tokenizer: vocab.json must be one object from token to id"),
        ('{"a": "b"}', "must be one object from token to id"),
        ('{"a": 1, "b": 1}', "some ids stand twice"),
        ('{"a": 1}', r"must hold all 256 bytes to be lossless, 255 are missing \(the first is byte 0\)"),
    ],
)
def test_bad_vocab_files(tmp_path: Path, vocab: str, message: str) -> None:
    good, merges = gpt2_files(tmp_path)
    good.write_text(vocab, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Tokenizer.from_gpt2(good, merges)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (b"#version: 0.2\nt h\nthe\n", r"merges.txt:3: tokenizer: a merge must be two tokens .*, got 'the'"),
        (b"#version: 0.2\nq x\n", r"merges.txt:2: tokenizer: the merge 'q x' needs the token 'qx', which vocab"),
        (b"t h\n\xff\n", r"merges.txt: tokenizer: the file must be UTF-8, byte 4 is not"),
    ],
)
def test_bad_merges_files(tmp_path: Path, merges: bytes, message: str) -> None:
    vocab, rules = gpt2_files(tmp_path)
    rules.write_bytes(merges)
    with pytest.raises(DataError, match=message):
        Tokenizer.from_gpt2(vocab, rules)
    with pytest.raises(DataError, match="cannot read the file"):
        Tokenizer.from_gpt2(vocab, tmp_path / "none")


def test_damaged_and_missing_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer.json: tokenizer: cannot read the file \(No such file"):
        Tokenizer.load(tmp_path)
    file = TOKENIZER.save(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"tokenizer.json: tokenizer: the file must be a tokenizer.json, got"):
        Tokenizer.load(tmp_path)


def test_files_that_pad_with_eos_get_a_pad_of_their_own(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    names = {"eos_token": "<|endoftext|>", "pad_token": {"content": "<|endoftext|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    repaired = Tokenizer.load(tmp_path)
    assert (repaired.eos_id, repaired.pad_token, repaired.pad_id) == (TOKENIZER.eos_id, "<|pad|>", TOKENIZER.pad_id)
    with pytest.raises(DataError, match=r"EOS and PAD must be different tokens, got '<\|endoftext\|>' for both"):
        Tokenizer.load(tmp_path, pad_token="<|endoftext|>")


def test_own_names_of_eos_and_pad_are_kept(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    renamed = Tokenizer.load(tmp_path, eos_token="<|system|>", pad_token="<|user|>")
    renamed.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.eos_token, loaded.pad_token) == ("<|system|>", "<|user|>")
    assert loaded.fingerprint == renamed.fingerprint != TOKENIZER.fingerprint
    with pytest.raises(DataError, match=r"no end-of-text token '</s>'; name the one it has with eos_token"):
        Tokenizer.load(tmp_path, eos_token="</s>")
    (tmp_path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer_config.json: .* must be one JSON object"):
        Tokenizer.load(tmp_path)


def foreign(tmp_path: Path, change: str) -> Path:
    backend = tokenizers.Tokenizer.from_str(TOKENIZER._backend.to_str())
    if change == "normalizer":
        backend.normalizer = normalizers.NFC()
    elif change == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif change == "dropout":
        backend.model.dropout = 0.5
    elif change == "word level":
        backend = tokenizers.Tokenizer(models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>"))
    elif change == "few bytes":
        backend = tokenizers.Tokenizer(models.BPE({"a": 0, "<|endoftext|>": 1}, []))
    path = tmp_path / "tokenizer.json"
    path.write_text(backend.to_str(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("normalizer", "text must come back unchanged"),
        ("prefix space", "text must come back unchanged"),
        ("dropout", "must be BPE without dropout, got BPE"),
        ("word level", "must be BPE without dropout, got WordLevel"),
        ("few bytes", "must hold all 256 bytes to be lossless, 255 are missing"),
    ],
)
def test_tokenizers_that_lose_text_are_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Tokenizer.load(foreign(tmp_path, change))


def test_truncation_and_padding_of_a_foreign_file_do_not_apply(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(TOKENIZER._backend.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    path.write_text(backend.to_str(), encoding="utf-8")
    assert Tokenizer.load(path).encode(TEXT) == TOKENIZER.encode(TEXT)


def test_a_pattern_that_gives_a_text_up(tmp_path: Path) -> None:
    """The library panics there, past every `except Exception`."""
    file = TOKENIZER.save(tmp_path)
    described = json.loads(file.read_text(encoding="utf-8"))
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, described["pre_tokenizer"]]}
    file.write_text(json.dumps(described), encoding="utf-8")
    loaded = Tokenizer.load(file)
    assert loaded.decode(loaded.encode("aaa b")) == "aaa b"
    with pytest.raises(DataError, match=r"the pattern of tokenizer\.json must split every text"):
        loaded.encode("a" * 60 + "b")
