"""The terminal chat: what a talk remembers, its commands, lines from a pipe, and a real terminal with Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instructgpt_fast.checkpoint import Loaded, load_model
from instructgpt_fast.cli import main
from instructgpt_fast.cli.chat import Terminal
from instructgpt_fast.cli.conversation import Conversation
from instructgpt_fast.data import Demonstration, read_jsonl
from instructgpt_fast.errors import ConfigError, DataError
from instructgpt_fast.generate import Drawn, Engine, generate
from instructgpt_fast.model import GPT, PAGE_SIZE
from instructgpt_fast.tokenizer import Message
from python_tests.train.material import CONTEXT, Material

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def talker(material: Material) -> Loaded:
    return load_model(material.save("talker", material.gpt()))


@pytest.fixture
def raw(talker: Loaded) -> Loaded:
    return Loaded(talker.model, talker.tokenizer, "raw", "pretrain", talker.path)


def conversation(loaded: Loaded, system: str | None = None, **sampling: Any) -> Conversation:
    return Conversation(loaded, {"max_new_tokens": 5, "seed": 7, **sampling}, system)


def piped(loaded: Loaded, *lines: str, **options: Any) -> list[str]:
    """What lines from a pipe are answered."""
    out, aside = io.StringIO(), io.StringIO()
    Terminal(conversation(loaded, **options), io.StringIO("\n".join(lines)), out, aside).run()
    return out.getvalue().split("\n")[:-1]


def expected(loaded: Loaded, prompt: Any, seed: int = 7, **sampling: Any) -> str:
    """What `generate` answers, which is one text for one prompt."""
    text = generate(loaded, prompt, max_new_tokens=5, seed=seed, **sampling)
    assert isinstance(text, str)
    return text


def test_a_talk_remembers_its_turns(talker: Loaded) -> None:
    first, second = piped(talker, "Hello", "", "And now?")
    assert first == expected(talker, "Hello")
    turns = [Message("user", "Hello"), Message("assistant", first), Message("user", "And now?")]
    assert second == expected(talker, turns, seed=8)


def test_new_forgets(talker: Loaded) -> None:
    first, again = piped(talker, "Hello", "/new", "Hello", temperature=0.0)
    assert again == first == expected(talker, "Hello", temperature=0.0)


def test_a_system_message_comes_first_and_can_be_changed(talker: Loaded) -> None:
    def asked(system: str) -> list[Message]:
        return [Message("system", system), Message("user", "Hello")]

    first, second, third = piped(
        talker, "Hello", "/new", "/system Be long.", "Hello", "/new", "/system", "Hello", system="Be brief."
    )
    assert first == expected(talker, asked("Be brief."))
    assert second == expected(talker, asked("Be long."), seed=8)
    assert third == expected(talker, "Hello", seed=9)


def test_retry_asks_again_with_another_seed(talker: Loaded) -> None:
    first, again = piped(talker, "Hello", "/retry")
    assert again == expected(talker, "Hello", seed=8) != first
    with pytest.raises(DataError, match="there must be an answer to try again"):
        piped(talker, "/retry")


def test_temperature(talker: Loaded) -> None:
    (answer,) = piped(talker, "/temperature 0", "Hello")
    assert answer == expected(talker, "Hello", temperature=0.0)
    for wrong, said in (("warm", "needs a number, got 'warm'"), ("", "got ''"), ("-1", "must not be negative")):
        with pytest.raises(ConfigError, match=said):
            piped(talker, f"/temperature {wrong}")


def test_a_slash_can_be_said(talker: Loaded) -> None:
    (answer,) = piped(talker, "//new")
    assert answer == expected(talker, "/new")
    with pytest.raises(ConfigError, match="unknown command /retyr, did you mean '/retry'"):
        piped(talker, "/retyr")


def test_a_base_model_continues_each_line_alone(raw: Loaded) -> None:
    first, second = piped(raw, "The cat", "The cat", temperature=0.0)
    assert first == second == expected(raw, "The cat", temperature=0.0)
    with pytest.raises(ConfigError, match="a system message needs a model of prompt_format 'dialogue'"):
        piped(raw, "Hello", system="Be brief.")
    with pytest.raises(ConfigError, match="a system message needs a model of prompt_format 'dialogue'"):
        piped(raw, "/system Be brief.")


def test_a_saved_talk_is_a_demonstration(talker: Loaded, raw: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "talk.jsonl"
    talk = conversation(talker, system="Be brief.")
    first = "".join(talk.answer("Hello"))
    talk.save(str(file))
    second = "".join(talk.answer("And now?"))
    talk.save(str(file))
    (saved,) = read_jsonl(file, Demonstration)
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", first), ("user", "And now?")]
    assert saved == Demonstration(tuple(Message(*turn) for turn in turns), second)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"talk\.jsonl must not be there yet"):
        conversation_that_answered(talker).save(str(file))
    with pytest.raises(DataError, match="the directory does not exist"):
        talk.save(str(tmp_path / "absent" / "talk.jsonl"))
    with pytest.raises(DataError, match="must have an answer"):
        conversation(talker).save(str(tmp_path / "empty.jsonl"))

    talk = conversation_that_answered(raw)
    talk.save(str(tmp_path / "raw.jsonl"))
    assert json.loads((tmp_path / "raw.jsonl").read_text()) == {"prompt": "Hello", "response": talk.exchanges[0][1]}


def conversation_that_answered(loaded: Loaded) -> Conversation:
    talk = conversation(loaded)
    assert "".join(talk.answer("Hello"))
    return talk


def test_the_oldest_turns_are_forgotten(talker: Loaded, tmp_path: Path) -> None:
    assert isinstance(talker.model, GPT)
    talk = conversation(talker, system="Be brief.")
    aside = io.StringIO()
    lines = [f"Question {number}?" for number in range(6)]
    Terminal(talk, io.StringIO("\n".join(lines)), io.StringIO(), aside).run()
    assert 0 < talk.forgotten < len(talk.exchanges) == 6
    told = re.findall(r"no longer knows the oldest (\d+ )?exchange", aside.getvalue())
    assert sum(int(count or 1) for count in told) == talk.forgotten
    seen = [Message("system", "Be brief.")]
    for asked, said in talk.exchanges[talk.forgotten:-1]:
        seen += [Message("user", asked), Message("assistant", said)]
    seen.append(Message("user", lines[-1]))
    assert len(talker.tokenizer.encode_prompt(seen, "dialogue")) + 5 <= CONTEXT
    assert talk.exchanges[-1][1] == expected(talker, seen, seed=7 + 5), "the model was told what is left, and no more"
    saved = json.loads(talk.save(str(tmp_path / "talk.jsonl")).read_text())
    assert len(saved["messages"]) == 1 + 2 * 6, "what the model forgot is saved"


def test_a_message_longer_than_the_context_is_refused_and_not_remembered(talker: Loaded) -> None:
    talk = conversation(talker)
    with pytest.raises(DataError, match=f"context of {CONTEXT} tokens"):
        list(talk.answer("cat " * CONTEXT))
    assert talk.exchanges == []


def test_an_answer_that_is_left_early_is_remembered_so_far(talker: Loaded) -> None:
    talk = conversation(talker, max_new_tokens=20)
    pieces = talk.answer("Hello")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert talk.exchanges == [("Hello", said)]
    engine = talk._engine
    assert engine is not None
    assert not engine.busy


def test_what_was_said_is_not_computed_again(talker: Loaded) -> None:
    """The second prompt begins with the first and its answer; its answer is that of a prompt computed whole."""
    talk = conversation(talker)
    first = "".join(talk.answer("Name the cat and the dog and the owl."))
    engine = talk._engine
    assert engine is not None
    assert engine.stats().shared_prompt_tokens == 0
    second = "".join(talk.answer("And?"))
    assert talk._engine is engine
    assert engine.stats().shared_prompt_tokens >= PAGE_SIZE
    asked = Message("user", "Name the cat and the dog and the owl.")
    turns = [asked, Message("assistant", first), Message("user", "And?")]
    assert second == expected(talker, turns, seed=8)


def test_after_an_interrupted_step_the_talk_goes_on(talker: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a step: what was said is kept, and the next answer is not drawn by a torn engine."""
    talk = conversation(talker, temperature=0.0, max_new_tokens=20)
    step, steps = Engine.step, []

    def interrupted(engine: Engine) -> list[Drawn]:
        steps.append(engine)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(talk.answer("Hello"))
    ((asked, said),) = talk.exchanges
    assert asked == "Hello"
    turns = [Message("user", "Hello"), Message("assistant", said), Message("user", "And now?")]
    (whole,) = generate(talker, [turns], max_new_tokens=20, temperature=0.0)
    assert "".join(talk.answer("And now?")) == whole
    assert steps[-1] is not steps[0]


def test_lines_from_a_pipe(talker: Loaded, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the answers; what a line does wrong ends the command with status 2."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    words = ["chat", "--checkpoint", str(talker.path), "--max-new-tokens", "5", "--seed", "7"]
    assert main(words) == 0
    assert capsys.readouterr() == (expected(talker, "Hello") + "\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    assert main(words) == 2
    assert "the input must be UTF-8" in capsys.readouterr().err


class OnTerminal:
    """The chat command on a pseudo-terminal: keys go in, what the screen would show comes out."""

    def __init__(self, checkpoint: Path, *options: str) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "instructgpt_fast", "chat", "--checkpoint", str(checkpoint), *options],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling terminal
        )
        os.close(slave)
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """Read until `pattern` is shown; return what was shown up to its end, and begin behind it next time."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen)):
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} was not shown within {seconds} s; shown was {self.screen!r}"
            self.screen += os.read(self.master, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
        shown, self.screen = self.screen[: found.end()], self.screen[found.end():]
        return shown

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.fixture(scope="module")
def slow_checkpoint(material: Material) -> Path:
    """A model whose likeliest token is always a letter, so that its answer is seen and lasts until it is stopped."""
    model = material.gpt(n_positions=4096, n_layer=4, d_model=128)
    silent = [token for token in range(model.config.vocab_size) if not material.tokenizer.bytes_of(token).isalpha()]
    with torch.no_grad():
        model.lm_weight[silent] = 0.0  # their logits are 0, and among the letters one is above
    return Path(material.save("slow", model))


@pytest.fixture
def terminal(slow_checkpoint: Path) -> Iterator[OnTerminal]:
    shown = OnTerminal(slow_checkpoint, "--temperature", "0", "--max-new-tokens", "4000")
    yield shown
    shown.close()


def test_a_talk_on_a_terminal(terminal: OnTerminal, slow_checkpoint: Path, tmp_path: Path) -> None:
    """Ctrl-C stops the answer in flight and keeps the talk; Ctrl-D ends it with status 0."""
    greeting = terminal.until("slow> ")
    assert f"{slow_checkpoint}: sft, context of 4096 tokens" in greeting
    assert "Ctrl-D ends the talk" in greeting
    terminal.type("Hello there\n")
    terminal.until(r"Hello there\n\w{20}")
    terminal.type("\x03")
    terminal.until(r" \[stopped\]\nslow> ")
    terminal.type("/retyr\n")
    terminal.until(r"error: chat: unknown command /retyr, did you mean '/retry'.*\nslow> ")
    terminal.type(f"/save {tmp_path / 'talk.jsonl'}\n")
    terminal.until("saved: .*\nslow> ")
    user, assistant = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert user == {"role": "user", "content": "Hello there"}
    loaded = load_model(slow_checkpoint)
    said = assistant["content"]
    assert len(said) >= 20
    assert len(loaded.tokenizer.encode(said)) < 3900, "the answer had come to its end before it could be stopped"
    assert said.startswith(str(generate(loaded, "Hello there", temperature=0, max_new_tokens=5)))
    terminal.type("\x04")
    assert terminal.process.wait(timeout=60) == 0


def at_prompts(talk: Conversation, monkeypatch: pytest.MonkeyPatch, *typed: str | BaseException) -> tuple[str, str]:
    """What is shown as the answers, and beside them, when this is typed at the prompts of a terminal, then Ctrl-D."""
    keys = iter([*typed, EOFError()])

    def line(prompt: str) -> str:
        assert prompt == f"{talk.name}> "
        given = next(keys)
        if isinstance(given, str):
            return given
        raise given

    monkeypatch.setattr("builtins.input", line)
    source, out, aside = io.StringIO(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(source, "isatty", lambda: True)
    Terminal(talk, source, out, aside).run()
    return out.getvalue(), aside.getvalue()


def test_what_is_typed_wrong_does_not_end_the_talk(talker: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does Ctrl-C at the prompt. (Not on the pseudo-terminal: a signal between a prompt and the wait for keys is
    noticed by CPython's readline with the next key only.)"""
    talk = conversation(talker, temperature=0.0)
    _, aside = at_prompts(talk, monkeypatch, KeyboardInterrupt(), "", "/temperature warm", "cat " * CONTEXT, "Hello")
    assert talk.exchanges == [("Hello", expected(talker, "Hello", temperature=0.0))]
    told = aside.split("\n")
    assert told.count("Ctrl-D ends the talk.") == 1
    assert [line.split(":")[0] for line in told if "error" in line] == ["error"] * 2


def test_a_run_is_called_by_its_folder(talker: Loaded, tmp_path: Path) -> None:
    step = Loaded(talker.model, talker.tokenizer, "dialogue", "ppo", tmp_path / "aligned" / "checkpoint-000500")
    assert conversation(step).name == "aligned"


def test_control_characters_of_a_model_do_not_reach_the_terminal(
    talker: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = ["a\x1b[2J", "\n\tb\x9b\x7f"]
    monkeypatch.setattr("instructgpt_fast.cli.conversation.stream", lambda *a, **k: (piece for piece in drawn))
    talk = conversation(talker)
    out, _ = at_prompts(talk, monkeypatch, "Hello")
    assert out == "a␛[2J\n\tb�␡\n\n"
    assert talk.exchanges == [("Hello", "a\x1b[2J\n\tb\x9b\x7f")], "the talk keeps what was said"
