"""Token shards: the text comes back, a stopped build goes on, and damage is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from instructgpt_fast.data import TokenShards, TokenWindows, is_shard_folder, open_tokens, prepare, prepare_texts
from instructgpt_fast.data import texts as texts_module
from instructgpt_fast.data.shards import HEADER, read_header
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.tokenizer import Tokenizer

DOCUMENTS = [f"Document {number}. " + "It has some words. " * (number % 5 + 5) + "é\n" for number in range(30)]
TOKENIZER = Tokenizer.train(DOCUMENTS, 266)  # five merges
WHOLE = "".join(document + "<|endoftext|>" for document in DOCUMENTS)


def jsonl(path: Path, documents: list[str] = DOCUMENTS) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


def text_of(shards: TokenShards) -> str:
    return TOKENIZER.decode(np.asarray(shards).tolist())


@pytest.fixture
def shards(tmp_path: Path) -> TokenShards:
    return prepare(jsonl(tmp_path / "a.jsonl"), tmp_path / "shards", TOKENIZER, shard_tokens=400)


def test_text_comes_back_with_eos_behind_each_document(shards: TokenShards) -> None:
    assert text_of(shards) == WHOLE
    assert shards.documents == 30 and len(list(shards.folder.glob("*.tokens"))) > 3
    assert (shards.eos_id, shards.vocab_size) == (TOKENIZER.eos_id, TOKENIZER.vocab_size)
    shards.verify()


def test_slices_cross_shards(shards: TokenShards) -> None:
    whole = np.asarray(shards)
    assert whole.dtype == np.int64 and len(whole) == len(shards)
    for start, stop in [(0, 0), (0, 1), (150, 450), (-7, None), (5, 3), (0, 10**9)]:
        assert shards[start:stop].tolist() == whole[start:stop].tolist()
    assert (shards[0], shards[-1]) == (whole[0], TOKENIZER.eos_id)
    with pytest.raises(IndexError):
        shards[len(shards)]
    with pytest.raises(DataError, match="a slice of tokens must have step 1, got 2"):
        shards[::2]


def test_large_vocabularies_take_four_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = prepare_texts(DOCUMENTS, tmp_path / "small", TOKENIZER)
    monkeypatch.setattr(TOKENIZER, "vocab_size", 1 << 17)
    large = prepare_texts(DOCUMENTS, tmp_path / "large", TOKENIZER)
    assert [read_header(s.folder / "00000.tokens").item_bytes for s in (small, large)] == [2, 4]
    assert large[:].tolist() == small[:].tolist()


def test_folders_and_long_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "PIECE_CHARACTERS", 40)
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    long = "".join(f"line {number} of a long file\n" for number in range(50)) + "no end"
    (source / "a.txt").write_text(long, encoding="utf-8")
    (source / "empty.txt").write_text("", encoding="utf-8")
    (source / "deep" / "b.txt").write_text("exactly\n" * 5, encoding="utf-8")  # ends where a piece does
    (source / "notes.md").write_text("not text to learn", encoding="utf-8")
    jsonl(source / "z.jsonl", ["one", "two"])
    shards = prepare(source, tmp_path / "shards", TOKENIZER)
    texts = [long, "exactly\n" * 5, "one", "two"]
    assert text_of(shards) == "".join(text + "<|endoftext|>" for text in texts)
    assert list(texts_module.documents(source)) == texts
    assert shards.documents == 4


def test_a_stopped_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jsonl(tmp_path / "a.jsonl")
    expected = prepare(source, tmp_path / "whole", TOKENIZER, shard_tokens=400)
    folder = tmp_path / "stopped"

    def stop(tokens: int) -> None:
        if tokens > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, folder, TOKENIZER, shard_tokens=400, on_progress=stop)
    finished = sorted(folder.iterdir())
    assert 0 < len(finished) < len(list(expected.folder.glob("*.tokens")))
    assert is_shard_folder(folder)
    with pytest.raises(DataError, match="building was not finished: prepare the same text into it again"):
        TokenShards(folder)
    before = {path: path.stat().st_mtime_ns for path in finished}
    written: list[int] = []
    again = prepare(source, folder, TOKENIZER, shard_tokens=400, on_progress=written.append)
    assert {path: path.stat().st_mtime_ns for path in finished} == before  # not written a second time
    assert len(written) == len(list(expected.folder.glob("*.tokens"))) - len(finished)
    assert again[:].tolist() == expected[:].tolist()
    assert (folder / "index.json").read_text() == (expected.folder / "index.json").read_text()


def test_a_finished_build_is_found_again(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl")
    first = open_tokens(source, TOKENIZER, tmp_path / "cache")
    written: list[int] = []
    again = open_tokens(source, TOKENIZER, tmp_path / "cache", on_progress=written.append)
    assert not written and again[:].tolist() == first[:].tolist()
    assert open_tokens(tmp_path / "cache", TOKENIZER, tmp_path / "unused")[:].tolist() == first[:].tolist()
    assert not (tmp_path / "unused").exists()


def test_other_text_and_other_tokenizer_are_refused(tmp_path: Path) -> None:
    source, folder = jsonl(tmp_path / "a.jsonl"), tmp_path / "shards"
    prepare(source, folder, TOKENIZER)
    other = Tokenizer.train(DOCUMENTS, 265)
    with pytest.raises(DataError, match="the folder holds shards of another tokenizer; delete them or name another"):
        prepare(source, folder, other)
    with pytest.raises(DataError, match=r"made with the tokenizer in use \(265 tokens, .*got one of 266 tokens"):
        TokenShards(folder, other)
    jsonl(source, [*DOCUMENTS[:-1], "changed"])
    with pytest.raises(DataError, match="the folder holds shards of another text"):
        prepare(source, folder, TOKENIZER)


def test_truncated_changed_and_foreign_files(shards: TokenShards) -> None:
    path = shards.folder / "00001.tokens"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError, match=rf"00001.tokens: shards: the file is truncated: .*make {len(good)} bytes, got"):
        TokenShards(shards.folder)
    path.write_bytes(good + b"x")
    with pytest.raises(DataError, match="the file is damaged"):
        TokenShards(shards.folder)
    path.write_bytes(good[:20])
    with pytest.raises(DataError, match="must begin with a token shard's header"):
        TokenShards(shards.folder)
    path.write_bytes(good[:8] + b"\x09" + good[9:])
    with pytest.raises(DataError, match="the format must be 1, got 9"):
        TokenShards(shards.folder)
    path.write_bytes((shards.folder / "00000.tokens").read_bytes())
    with pytest.raises(DataError, match=r"not the one that index.json lists"):
        TokenShards(shards.folder)
    path.write_bytes(good[: HEADER.size] + bytes([good[HEADER.size] ^ 1]) + good[HEADER.size + 1 :])
    with pytest.raises(DataError, match=r"00001.tokens: shards: the tokens have changed: their CRC-32 must be"):
        TokenShards(shards.folder).verify()
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read the file \(No such file"):
        TokenShards(shards.folder)
    (shards.folder / "index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"index.json: shards: index.json is damaged"):
        TokenShards(shards.folder)


def test_bad_sources(tmp_path: Path) -> None:
    cases = {
        "none.txt": "there is no such file",
        "a.csv": r"must end in .txt or .jsonl, got 'a.csv'",
        "folder": r"the folder must hold .txt or .jsonl files, got none",
    }
    (tmp_path / "folder").mkdir()
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / name, tmp_path / "shards", TOKENIZER)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\nno\xff\n")
    with pytest.raises(DataError, match=r"bad.txt:2: texts: the file must be UTF-8, byte 2 of the line is not"):
        prepare(bad, tmp_path / "shards", TOKENIZER)
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="must hold at least one document, got none"):
        prepare(bad, tmp_path / "shards", TOKENIZER)
    with pytest.raises(ConfigError, match="shard_tokens must be at least 1, got 0"):
        prepare(bad, tmp_path / "shards", TOKENIZER, shard_tokens=0)


def test_bad_lines_stop_or_are_counted(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", ["one"])
    with source.open("a") as file:
        file.write('{"txt": 3}\n{"text": "two"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: text: a record needs 'text', got 'txt'"):
        prepare(source, tmp_path / "shards", TOKENIZER)
    shards = prepare(source, tmp_path / "shards", TOKENIZER, on_bad_line="skip")
    assert text_of(shards) == "one<|endoftext|>two<|endoftext|>"
    assert shards.skipped_lines == 1
    with pytest.raises(ConfigError, match="on_bad_line must be 'error' or 'skip', got 'no'"):
        prepare(source, tmp_path / "other", TOKENIZER, on_bad_line="no")  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="a part of the path is a file"):
        prepare(source, source / "shards", TOKENIZER)


def test_windows(shards: TokenShards) -> None:
    windows = TokenWindows(shards, 64)
    whole = np.asarray(shards)
    assert len(windows) == len(whole) // 64
    batch = windows.batch([2, 0])
    assert batch.shape == (2, 64) and batch.dtype == torch.int64
    assert batch.tolist() == [whole[128:192].tolist(), whole[:64].tolist()]
    parts = list(windows.batches(4))
    assert torch.cat(parts).flatten().tolist() == whole[: len(windows) * 64].tolist()
    assert {len(part) for part in parts[:-1]} == {4}
    assert TokenWindows(whole, 64).batch([1]).tolist() == windows.batch([1]).tolist()
    with pytest.raises(DataError, match=rf"a window must be in 0..{len(windows) - 1}, got {len(windows)}"):
        windows.batch([len(windows)])
    with pytest.raises(DataError, match=rf"at least one window of 100000 tokens, got {len(whole)} tokens"):
        TokenWindows(shards, 100_000)
    with pytest.raises(ConfigError, match="needs 2 tokens, one to see and one to predict, got 1"):
        TokenWindows(shards, 1)
