"""The commands import and export from the shell's point of view, with right words and wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructgpt_fast.checkpoint import load_model
from instructgpt_fast.cli import main

pytest.importorskip("transformers", reason="transformers makes the folder")

from python_tests.checkpoint.foreign import gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("theirs")
    gpt2(made)
    return made


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_there_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "import", "--folder", folder, "--output-dir", tmp_path / "ours")
    assert status == 0
    assert out == (
        "language model: 35,520 parameters, 2 layers, width 32, 266 tokens, raw prompts\n"
        f"checkpoint: {tmp_path / 'ours'}\n"
    )
    status, out, _ = run(capsys, "export", "--checkpoint", tmp_path / "ours", "--output-dir", tmp_path / "theirs",
                         "--dtype", "bf16", "--max-shard-size", "10KB")
    assert (status, out) == (0, f"GPT2LMHeadModel in bfloat16: {tmp_path / 'theirs'}\n")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 5
    exported, imported = load_model(tmp_path / "theirs"), load_model(tmp_path / "ours")
    assert exported.tokenizer.fingerprint == imported.tokenizer.fingerprint
    status, out, _ = run(capsys, "generate", "--checkpoint", folder, "--prompt", "the", "--max-new-tokens", "3")
    assert status == 0 and out


def test_wrong_words_are_explained(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[tuple[object, ...], str]] = [
        (("import", "--folder", tmp_path / "none", "--output-dir", tmp_path / "x"), "got nothing; check the path"),
        (("import", "--folder", tmp_path, "--output-dir", tmp_path / "x"), "got a folder without it"),
        (("import", "--folder", folder, "--output-dir", folder), "must be new or an empty folder, got one in use"),
        (("export", "--checkpoint", tmp_path / "none", "--output-dir", tmp_path / "x"), "got nothing; check the path"),
        (("export", "--checkpoint", folder, "--output-dir", folder), "must be new, empty, or an earlier export"),
        (("export", "--checkpoint", folder, "--output-dir", tmp_path / "x", "--max-shard-size", "lots"),
         "max_shard_size must be bytes or text such as '5GB', got 'lots'"),
    ]
    for words, told in cases:
        status, _, err = run(capsys, *words)
        assert status == 2 and err.startswith("error: ") and told in err, err
        assert not (tmp_path / "x").exists()
