"""The command line: finding commands, merging options, exit codes, and how fast help is."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from instructgpt_fast.cli import command_line
from instructgpt_fast.cli.command_line import COMMANDS, load, main, parse_options
from instructgpt_fast.config import field_types
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.train import SftConfig

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ["--init", "base", "--data", "d.jsonl", "--output-dir", "o"]


def sft(words: list[str]) -> SftConfig:
    parsed: SftConfig = parse_options("sft", SftConfig, words, "Fine-tune.")
    return parsed


def test_flags_are_the_options_of_the_interface() -> None:
    flags = ["--learning-rate", "1e-4", "--no-progress", "--max_steps", "7", "--on-long=filter"]
    assert sft([*NEEDED, *flags]) == SftConfig(
        init="base", data="d.jsonl", output_dir="o", learning_rate=1e-4, progress=False, max_steps=7, on_long="filter",
    )


def test_precedence_defaults_preset_file_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('learning_rate = 1e-3\nseed = 5\npreset = "instructgpt-175b"\n')
    options = sft([*NEEDED, "--config", str(file), "--seed", "9"])
    assert options.num_train_epochs == 16.0
    assert options.max_prompt_tokens == 1024, "from the preset that the file names"
    assert options.train_batch_size == 8
    assert options.learning_rate == 1e-3, "the file wins over the preset"
    assert options.seed == 9, "a flag wins over the file"
    other = sft([*NEEDED, f"--config={file}", "--preset", "instructgpt-1.3b"])
    assert (other.preset, other.train_batch_size, other.learning_rate) == ("instructgpt-1.3b", 32, 1e-3)


def test_required_options_may_come_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[pretrain]\ndata = "t"\n[sft]\ninit = "b"\ndata = "d"\noutput_dir = "o"\nmax_grad_norm = "none"\n')
    assert sft(["--config", str(file)]) == SftConfig(init="b", data="d", output_dir="o", max_grad_norm=None)


def test_none_on_the_command_line() -> None:
    options = sft([*NEEDED, "--train-batch-size", "none", "--max-grad-norm=None", "--report-to", "none"])
    assert (options.train_batch_size, options.max_grad_norm, options.report_to) == (None, None, "none")


def test_a_wrong_key_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("learning_rte = 1e-3\n")
    with pytest.raises(ConfigError, match=r"run\.toml: unknown option 'learning_rte' of sft, did you mean"):
        sft([*NEEDED, "--config", str(file)])
    file.write_text('learning_rate = "fast"\n')
    with pytest.raises(ConfigError, match=r"run\.toml: learning_rate must be a finite number, got 'fast'"):
        sft([*NEEDED, "--config", str(file)])


def test_a_flag_without_its_value() -> None:
    with pytest.raises(ConfigError, match="--config: needs a value"):
        sft([*NEEDED, "--config"])


@pytest.mark.parametrize("words", [[*NEEDED, "--learning-rat", "1"], ["--init", "base"], [*NEEDED, "--seed", "x"]])
def test_flags_that_are_unknown_missing_or_wrong_exit_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        sft(words)
    assert raised.value.code == 2
    told = capsys.readouterr()
    assert "--" in told.out + told.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: instructgpt-fast {command}" in text
    for name in field_types(load(COMMANDS[command].options)):
        # A word without a flag stands in capitals.
        assert f"--{name.replace('_', '-')}" in text or f" {name.upper()} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    """A field's docstring is its help: one that lacks it would show an empty line."""
    cls = load(COMMANDS[command].options)
    from tyro._docstrings import get_field_docstring

    for name in field_types(cls):
        assert get_field_docstring(cls, name, ()), f"{cls.__name__}.{name} has no docstring"


@pytest.mark.parametrize(("words", "told"), [
    (["pretain"], "unknown command 'pretain', did you mean 'pretrain'?"),
    (["tokenizer"], "instructgpt-fast tokenizer: needs one of: train, inspect"),
    (["tokenizer", "show"], "got 'show'"),
    (["sft", *NEEDED, "--save-steps", "0"], "save_steps must be at least 1, got save_steps=0"),
    (["sft", *NEEDED, "--preset", "instructgpt-2b"], "preset must be one of"),
    (["generate", "--checkpoint", "nowhere", "--prompt", "hi"], "must be a checkpoint or a run directory, got nothing"),
    (["evaluate", "--checkpoint", "nowhere"], "give tasks, data or comparisons"),
    (["tokenizer", "inspect", "--tokenizer", "absent.json"], "absent.json"),
])
def test_our_own_errors_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError):
        main(["--debug", "tokenizer"])


def failing(error: BaseException) -> Any:
    def run(options: Any) -> None:
        raise error

    return run


@pytest.mark.parametrize(("error", "status", "told"), [
    (DataError("a rule", "file.jsonl", 3), 2, "error: file.jsonl:3: a rule\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
    (BrokenPipeError(), 0, ""),
])
def test_exit_codes(
    error: BaseException, status: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "dispatch", failing(error))
    monkeypatch.setattr(sys.stdout, "close", lambda: None)
    assert main(["anything"]) == status
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("words", "told"), [
    (["x"], "warning: weak\n"), (["--debug", "x"], "a.py:3: UserWarning: weak\n"),
])
def test_a_warning_is_one_line(words: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = warnings.formatwarning
    found = []

    def dispatch(_: list[str]) -> int:
        found.append(warnings.formatwarning(UserWarning("weak"), UserWarning, "a.py", 3, ""))
        return 0

    monkeypatch.setattr(command_line, "dispatch", dispatch)
    assert main(words) == 0 and found == [told]
    assert warnings.formatwarning is before


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "dispatch", failing(ZeroDivisionError("x")))
    with pytest.raises(ZeroDivisionError):
        main(["anything"])


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--version"], ["tokenizer"], ["pretain"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """An overview, a version or a wrong command must not wait for torch, numpy, tyro or rich."""
    script = (
        "import sys; from instructgpt_fast.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'tokenizers'} & set(sys.modules); assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, *words], env=environment, check=True, capture_output=True)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_python_dash_m(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "instructgpt_fast", "--version"], env=environment, check=True, capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("instructgpt-fast ")
