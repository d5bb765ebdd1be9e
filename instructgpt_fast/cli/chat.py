"""The command `chat`: a talk in the terminal, or answers to the lines of a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from instructgpt_fast.cli.sampling import Sampling
from instructgpt_fast.config import nearest, options_class
from instructgpt_fast.errors import ConfigError, DataError, InstructGPTError

if TYPE_CHECKING:
    from instructgpt_fast.cli.conversation import Conversation

# Control characters would move the cursor or worse; the pictures that Unicode has of them are shown in their place.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_VISIBLE |= {127: 0x2421} | dict.fromkeys(range(128, 160), 0xFFFD)

HELP = """\
/new               begin another talk
/retry             take the last answer back and let the model try again
/system TEXT       say TEXT to the model before the talk; without TEXT, nothing
/temperature X     below 1 sharpens, above 1 flattens, 0 always takes the likeliest token
/save FILE         write the talk as a line of jsonl, which sft can learn from
/help              this
//TEXT             say /TEXT
Ctrl-C stops an answer, Ctrl-D ends the talk.
"""


@options_class()
class Chat(Sampling):
    """Talk with a model; Ctrl-C stops an answer, Ctrl-D ends the talk, /help lists what else can be typed.

    Lines from a pipe are answered one after the other, as one talk, and nothing but the answers is printed.
    """

    system: str | None = None
    """Said to the model before the talk."""


def chat(options: Chat) -> None:
    """Read lines, print the model's answers as they come."""
    from instructgpt_fast.cli.conversation import Conversation

    talk = Conversation(options.load(), options.sampling(), options.system)
    Terminal(talk, sys.stdin, sys.stdout, sys.stderr).run()


class Terminal:
    """Carries lines from `source` to a talk and its answers to `out`; remarks about the talk go to `aside`.

    On a terminal it prompts, and an error is said and the talk goes on. From a pipe an error is raised: nobody is there
    to read it before the next line.
    """

    def __init__(self, talk: Conversation, source: IO[str], out: IO[str], aside: IO[str]) -> None:
        self.talk, self.source, self.out, self.aside = talk, source, out, aside
        self.interactive = source.isatty()
        self.commands: dict[str, Callable[[str], None]] = {
            "/new": self._new, "/retry": self._retry, "/system": self._system, "/temperature": self._temperature,
            "/save": self._save, "/help": self._help,
        }

    def run(self) -> None:
        """Talk until the lines end. Raises what a line from a pipe does wrong."""
        if self.interactive:
            self._greet()
        while (line := self._read()) is not None:
            try:
                self._take(line)
            except (InstructGPTError, KeyboardInterrupt) as stopped:
                if not self.interactive:
                    raise
                self._say(" [stopped]" if isinstance(stopped, KeyboardInterrupt) else f"error: {stopped}")

    def _greet(self) -> None:
        # Its import gives the prompt line editing and a history.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        context = self.talk.loaded.model.config.n_positions
        self._say(f"{self.talk.loaded.path}: {self.talk.loaded.stage}, context of {context} tokens")
        if not self.talk.remembers:
            self._say("This model continues each line on its own; it was not trained on dialogues.")
        self._say("/help lists what can be typed; Ctrl-C stops an answer, Ctrl-D ends the talk.")

    def _read(self) -> str | None:
        """The next line without its end, or None at the end of the input. Raises DataError for what is not UTF-8."""
        try:
            if not self.interactive:
                line = self.source.readline()
                return line.strip() if line else None
            return input(f"{self.talk.name}> ").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"chat: the input must be UTF-8, got {error}; convert it.") from error
        except EOFError:
            self.out.write("\n")
            return None
        except KeyboardInterrupt:
            self._say("\nCtrl-D ends the talk.")
            return ""

    def _take(self, line: str) -> None:
        if line.startswith("//"):
            self._answer(line[1:])
        elif line.startswith("/"):
            name, _, rest = line.partition(" ")
            if name not in self.commands:
                raise ConfigError(f"chat: unknown command {name}{nearest(name, self.commands)}; /help lists them.")
            self.commands[name](rest.strip())
        elif line:
            self._answer(line)

    def _answer(self, text: str) -> None:
        forgotten = self.talk.forgotten
        # Closed also when Ctrl-C comes between two pieces: what was said until then is remembered.
        with contextlib.closing(self.talk.answer(text)) as pieces:
            for piece in pieces:
                if self.talk.forgotten > forgotten:
                    count, forgotten = self.talk.forgotten - forgotten, self.talk.forgotten
                    oldest = "oldest exchange" if count == 1 else f"oldest {count} exchanges"
                    self._say(f"(The context is full: the model no longer knows the {oldest}.)")
                self.out.write(piece.translate(_VISIBLE) if self.interactive else piece)
                self.out.flush()
        self.out.write("\n")
        self.out.flush()

    def _say(self, text: str) -> None:
        self.aside.write(f"{text}\n")
        self.aside.flush()

    def _new(self, rest: str) -> None:
        self.talk.forget()
        if self.interactive:
            self._say("A new talk.")

    def _retry(self, rest: str) -> None:
        self._answer(self.talk.take_back())

    def _system(self, rest: str) -> None:
        self.talk.set_system(rest or None)

    def _temperature(self, rest: str) -> None:
        from instructgpt_fast.generate import SamplingConfig

        try:
            temperature = float(rest)
        except ValueError:
            raise ConfigError(f"chat: /temperature needs a number, got {rest!r}; type /temperature 0.7.") from None
        self.talk.sampling["temperature"] = SamplingConfig(temperature=temperature).temperature

    def _save(self, rest: str) -> None:
        if not rest:
            raise ConfigError("chat: /save needs a file, got nothing; type /save talk.jsonl.")
        self._say(f"saved: {self.talk.save(rest)}")

    def _help(self, rest: str) -> None:
        self._say(HELP.rstrip())
