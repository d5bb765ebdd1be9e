"""The command `instructgpt-fast`: every stage and tool, with the same options as the Python interface.

Options come from, in rising order of precedence: defaults, --preset, --config FILE.toml, flags.
Exit status: 0 done, 1 an unexpected failure, 2 a problem that the message explains, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import typing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from instructgpt_fast.config import convert, field_types, from_options, nearest, preset_values, read_toml
from instructgpt_fast.errors import ConfigError, InstructGPTError

PROGRAM = "instructgpt-fast"


@dataclass(frozen=True)
class Command:
    """A subcommand: one line of help, where its options class and its function are, both imported when it is used."""

    summary: str
    options: str
    run: str


_STAGE = "instructgpt_fast.cli.command_line:run_stage"
_TOOLS = "instructgpt_fast.cli.tools"
_PREPARE = "instructgpt_fast.cli.prepare"
_EXCHANGE = "instructgpt_fast.cli.import_export"
_LABEL = "instructgpt_fast.cli.label"

# Ordered as one works: from text to a model that talks.
COMMANDS: dict[str, Command] = {
    "tokenizer train": Command(
        "Train a byte-level BPE tokenizer on text.", f"{_TOOLS}:TokenizerTrain", f"{_TOOLS}:train_tokenizer"),
    "tokenizer inspect": Command(
        "Show how a tokenizer cuts a text.", f"{_TOOLS}:TokenizerInspect", f"{_TOOLS}:inspect_tokenizer"),
    "prepare": Command(
        "Clean raw text or jsonl and split it into train, valid and test.",
        "instructgpt_fast.data.hygiene:PrepareConfig", f"{_PREPARE}:prepare_splits"),
    "prepare shards": Command(
        "Turn text or jsonl into token shards for pretraining.", f"{_PREPARE}:PrepareShards",
        f"{_PREPARE}:prepare_shards"),
    "pretrain": Command(
        "Train a GPT on text from scratch.", "instructgpt_fast.train.pretrain:PretrainConfig", _STAGE),
    "sft": Command(
        "Fine-tune a model on demonstrations.", "instructgpt_fast.train.sft:SftConfig", _STAGE),
    "reward": Command(
        "Train a reward model on ranked answers.", "instructgpt_fast.train.reward:RewardConfig", _STAGE),
    "ppo": Command(
        "Train a policy against a reward model by PPO or PPO-ptx.", "instructgpt_fast.train.ppo:PpoConfig", _STAGE),
    "import": Command(
        "Turn a Hugging Face folder of GPT-2 or GPT-Neo into a checkpoint.", f"{_EXCHANGE}:Import",
        f"{_EXCHANGE}:import_folder"),
    "export": Command(
        "Turn a checkpoint into a folder that transformers loads.", f"{_EXCHANGE}:Export",
        f"{_EXCHANGE}:export_checkpoint"),
    "generate": Command(
        "Answer prompts with a model.", "instructgpt_fast.cli.generate:Generate",
        "instructgpt_fast.cli.generate:generate_text"),
    "chat": Command(
        "Talk with a model in the terminal.", "instructgpt_fast.cli.chat:Chat", "instructgpt_fast.cli.chat:chat"),
    "serve": Command(
        "Serve models over HTTP to OpenAI's clients, with a chat page.", "instructgpt_fast.cli.serve:ServeConfig",
        "instructgpt_fast.cli.serve:serve_checkpoints"),
    "label": Command(
        "Serve a page on which people write demonstrations and rank answers.", f"{_LABEL}:LabelConfig",
        f"{_LABEL}:serve_labels"),
    "label export": Command(
        "Write finished labels as jsonl for sft and reward.", f"{_LABEL}:LabelExport", f"{_LABEL}:export_labels"),
    "label agreement": Command(
        "Measure how far the labelers agree.", f"{_LABEL}:LabelAgreement", f"{_LABEL}:measure_agreement"),
    "evaluate": Command(
        "Measure models by tasks of your own and the paper's, or hold several against each other.",
        "instructgpt_fast.evaluate:EvaluateConfig", f"{_TOOLS}:evaluate_checkpoint"),
    "report": Command(
        "Write one HTML file about a run, or about several: figures, samples, diagnosis.",
        "instructgpt_fast.cli.report:Report", "instructgpt_fast.cli.report:write_report"),
    "doctor": Command(
        "Say what was built, what was found and why each automatic choice was made.", f"{_TOOLS}:Doctor",
        f"{_TOOLS}:run_doctor"),
    "quickstart": Command(
        "Run the whole method on the text that comes with the package.", "instructgpt_fast.quickstart:QuickstartConfig",
        "instructgpt_fast.quickstart:run_quickstart"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:
        words.remove("--debug")
    given = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _one_line
    try:
        return dispatch(words)
    except InstructGPTError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; what is left in the buffer has nowhere to go.
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0
    finally:
        warnings.formatwarning = given


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as it is told at the command line: without the place in our code."""
    return f"warning: {message}\n"


def dispatch(words: list[str]) -> int:
    """Find the subcommand, parse its options and run it. Raises ConfigError for an unknown command."""
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if words[0] == "--version":
        from instructgpt_fast._version import VERSION

        sys.stdout.write(f"{PROGRAM} {VERSION}\n")
        return 0
    name, rest = _command_name(words)
    command = COMMANDS[name]
    if name == "prepare" and any(word.partition("=")[0] == "--tokenizer" for word in rest):
        raise ConfigError(f"{PROGRAM} prepare: takes no --tokenizer; {PROGRAM} prepare shards makes token shards.")
    options = parse_options(name, load(command.options), rest, command.summary)
    run: Callable[[Any], None] = load(command.run)
    run(options)
    return 0


def _command_name(words: list[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS and len(words) >= length:
            return name, words[length:]
    group = [name.split()[1] for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        given = words[1] if len(words) > 1 and not words[1].startswith("-") else None
        hint = "" if given is None else f", got {given!r}"
        raise ConfigError(f"{PROGRAM} {words[0]}: needs one of: {', '.join(group)}{hint}; see {PROGRAM} --help.")
    known = {name.split()[0] for name in COMMANDS}
    raise ConfigError(f"{PROGRAM}: unknown command {words[0]!r}{nearest(words[0], known)}; see {PROGRAM} --help.")


def overview() -> str:
    """The text of `instructgpt-fast --help`, made without importing anything heavy."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([
        f"usage: {PROGRAM} COMMAND [OPTIONS]", "",
        "The InstructGPT method from raw text to an aligned, talking model.", "",
        "commands:", *lines, "",
        f"{PROGRAM} COMMAND --help lists the options of a command. Every command takes",
        "  --config FILE  options from a TOML file, or from its table named like the command; flags win",
        "  --debug        a traceback in place of the one-line error", "",
    ])


def load(place: str) -> Any:
    """Import "module:name"."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def parse_options(command: str, cls: Any, words: list[str], summary: str) -> Any:
    """Merge defaults, preset, --config file and flags into options of `cls`; exits with 2 on an unknown flag."""
    import tyro

    config, words = _take_flag(words, "config")
    given = {} if config is None else _read_section(config, command, cls)
    preset, _ = _take_flag(words, "preset")
    named = given.get("preset") if preset is None else preset
    defaults = {**preset_values(cls, named), **given}
    result = tyro.cli(
        cls, args=_none_words(cls, words), default=_partial(cls, defaults), prog=f"{PROGRAM} {command}",
        description=f"{summary}\n\n{(cls.__doc__ or '').strip()}",
    )
    # Plain dataclasses do not check themselves; for options classes this changes nothing.
    return from_options(cls, {name: getattr(result, name) for name in field_types(cls)})


def run_stage(config: Any) -> None:
    """Train, and print where the result is."""
    from instructgpt_fast.train import train

    result = train(config)
    for name, value in result.metrics.items():
        sys.stdout.write(f"{name}: {value:.6g}\n")
    sys.stdout.write(f"checkpoint: {result.checkpoint}\n")


def _take_flag(words: list[str], name: str) -> tuple[str | None, list[str]]:
    rest: list[str] = []
    value: str | None = None
    position = 0
    while position < len(words):
        word = words[position]
        if word == f"--{name}":
            if position + 1 >= len(words):
                raise ConfigError(f"--{name}: needs a value, got the end of the line; write --{name} VALUE.")
            value = words[position + 1]
            position += 2
        elif word.startswith(f"--{name}="):
            value = word.partition("=")[2]
            position += 1
        else:
            rest.append(word)
            position += 1
    return value, rest


def _read_section(path: str, command: str, cls: type) -> dict[str, Any]:
    """Options from a TOML file: its table named like the command, or else the whole file. Raises ConfigError."""
    table = read_toml(path)
    section = table.get(command)
    options = section if isinstance(section, dict) else table
    known = field_types(cls)
    for name in options:
        if name not in known:
            raise ConfigError(f"{path}: unknown option {name!r} of {command}{nearest(name, known)}; correct the file.")
    return {name: convert(path, name, value, known[name]) for name, value in options.items()}


def _partial(cls: Any, given: dict[str, Any]) -> Any:
    """An instance that carries defaults for the parser without being checked: required options are still missing."""
    import tyro

    instance = object.__new__(cls)
    for field in dataclasses.fields(cls):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        if value is dataclasses.MISSING:
            value = tyro.MISSING
        object.__setattr__(instance, field.name, given.get(field.name, value))
    return instance


def _none_words(cls: type, words: list[str]) -> list[str]:
    """Let `--limit none` mean None, as it does in TOML, wherever an option may be None."""
    optional = {name for name, annotation in field_types(cls).items() if type(None) in typing.get_args(annotation)}
    result: list[str] = []
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].replace("-", "_").partition("=")
            is_none = bool(equals) and value.lower() == "none" and flag in optional
            result.append(f"{word.partition('=')[0]}=None" if is_none else word)
        else:
            result.append("None" if word.lower() == "none" and flag in optional else word)
            flag = ""
    return result
