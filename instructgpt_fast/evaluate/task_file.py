"""Task files: a TOML file that says what is asked and how answers are judged, beside a jsonl of items.

    kind = "generation"
    data = "capitals.jsonl"            # relative to this file
    prompt = "Q: What is the capital of {country}?\nA:"
    answers = "capital"
    metrics = ["exact_match"]

`template = "..."` takes what is not said from a file of the package (evaluate/templates). A `{name}` in a text stands
for the field of that name of an item; `fields` gives a placeholder another field, `constants` a text of its own;
{{ and }} are braces. A name with dots goes into nested objects ("answers.text").

Nothing in a task file is run: it names no code, and placeholders are replaced, not evaluated.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from instructgpt_fast.config import Options, convert, field_types, nearest, options_class, read_toml
from instructgpt_fast.errors import ConfigError
from instructgpt_fast.evaluate.items import Item

_TEMPLATES = Path(__file__).parent / "templates"


@options_class()
class TaskOptions(Options):
    """What every kind of task file may say; a kind's own class adds to it."""

    stage: ClassVar[str] = "task"
    paths: ClassVar[tuple[str, ...]] = ("data",)
    """Options that are paths, relative to the task file."""
    texts: ClassVar[tuple[str, ...]] = ("prompt",)
    """Options in which {placeholders} stand for fields."""

    kind: str
    """What is measured: a name of evaluate/kinds.py."""
    data: str
    """jsonl of the items, relative to the task file."""
    name: str = ""
    """What results call the task; the task file's own name without .toml when not given."""
    template: str | None = None
    """A template of the package, which says whatever this file does not."""
    fields: dict = dataclasses.field(default_factory=dict)
    """Placeholder -> the data's field that it stands for, where their names differ."""
    constants: dict = dataclasses.field(default_factory=dict)
    """Placeholder -> text, the same for every item."""
    limit: int | None = None
    """Take the first so many items; None takes all."""

    def check(self) -> None:
        """Refuse texts whose placeholders cannot be read, and mappings of other things than text."""
        for option in ("fields", "constants"):
            for key, value in getattr(self, option).items():
                self.require(f"{option} must map names to texts", isinstance(value, str), **{option: {key: value}})
        both = sorted(set(self.fields) & set(self.constants))
        self.require("a placeholder is in fields or in constants, not both", not both, both=both)
        self.require("name must be one printable line", self.name.isprintable(), name=self.name)
        self.require("limit must be at least 1", self.limit is None or self.limit >= 1, limit=self.limit)
        for option in self.texts:
            text = getattr(self, option, None)
            if isinstance(text, str):
                self.placeholders(option, text)

    def ready(self, task: Task, config: Any) -> None:
        """Raise ConfigError for what the task needs of the evaluation's options (an EvaluateConfig) and has not got."""

    def placeholders(self, option: str, text: str) -> list[str]:
        """Names in braces of a text, in their order. Raises ConfigError for braces that do not close and the like."""
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as cause:
            raise ConfigError(
                f"{type(self).__name__}: {option} has braces that do not pair ({cause}), got {text!r}; write {{{{ "
                "for a brace that is text."
            ) from cause
        names = []
        for _, name, form, conversion in parts:
            if name is None:
                continue
            plain = bool(name) and "[" not in name and not form and conversion is None
            self.require(f"{option}: a placeholder is a field's name in braces and nothing else", plain, text=text)
            names.append(name)
        return names

    def fill(self, option: str, item: Item) -> str:
        """The text of `option` for one item. Raises DataError that names the item's line and the field."""
        return self.fill_text(getattr(self, option), item)

    def fill_text(self, text: str, item: Item) -> str:
        """`text` with its placeholders replaced for one item."""
        pieces = []
        for literal, name, _, _ in string.Formatter().parse(text):
            pieces.append(literal)
            if name is not None:
                constant = self.constants.get(name)
                pieces.append(item.text(self.field(name)) if constant is None else constant)
        return "".join(pieces)

    def field(self, placeholder: str) -> str:
        """The data's field that a placeholder, or an option that names a field, stands for."""
        return str(self.fields.get(placeholder, placeholder))


@dataclasses.dataclass(frozen=True)
class Task:
    """A task to run: its name, its checked options, the file it came from (or the template's).

    scorers: functions given in Python for what a task file cannot name, by option ("toxicity_scorer").
    """

    name: str
    path: Path
    options: Any  # of the kind's own class, a TaskOptions
    scorers: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)


def is_task_file(name: str) -> bool:
    """Whether a task is named by a file."""
    return name.endswith(".toml")


@cache
def template_names() -> tuple[str, ...]:
    """Names of the templates in the package."""
    return tuple(sorted(path.stem for path in _TEMPLATES.glob("*.toml")))


def read_task(path: str | Path, kinds: Mapping[str, type[TaskOptions]]) -> Task:
    """Read and check a task file. kinds: kind -> its options class. Raises ConfigError that names file and key."""
    path = Path(path)
    return make_task(read_toml(path), path, kinds)


def template_task(template: str, data: str, kinds: Mapping[str, type[TaskOptions]], *, name: str | None = None) -> Task:
    """The task of a template on a file whose fields have the template's names. Raises ConfigError."""
    name = name or template
    given = {"template": template, "name": name, "data": str(Path(data).absolute())}
    return make_task(given, Path(f"{name}.toml"), kinds)


def make_task(given: Mapping[str, Any], path: Path, kinds: Mapping[str, type[TaskOptions]]) -> Task:
    """Check the table of a task file at `path`. Raises ConfigError that names file and key."""
    table = _with_template(given, path)
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            f"{path}: kind must be one of {', '.join(kinds)}, got "
            f"{'nothing' if kind is None else repr(kind)}{nearest(str(kind), kinds)}; name it, or a template."
        )
    cls: Any = kinds[kind]
    known = field_types(cls)
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{path}: unknown key {key!r}{nearest(key, known) or ';'} a task of kind {kind} has "
                f"{', '.join(sorted(known))}."
            )
    missing = [name for name in _required(cls) if name not in table]
    if missing:
        raise ConfigError(f"{path}: a task of kind {kind} must say {', '.join(missing)}, got nothing; add it.")
    values = {key: convert(str(path), key, value, known[key]) for key, value in table.items()}
    for key in cls.paths:
        if "\0" in str(values.get(key)):
            raise ConfigError(f"{path}: {key} must be a path, got the NUL character in {values[key]!r}; take it out.")
        if values.get(key) is not None:
            values[key] = str(path.absolute().parent / values[key])
    values["name"] = values.get("name") or path.stem
    try:
        return Task(values["name"], path, cls(**values))
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).removeprefix(f'{cls.__name__}: ')}") from error


def _with_template(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    name = given.get("template")
    if name is None:
        return dict(given)
    names = template_names()
    if name not in names:
        raise ConfigError(
            f"{path}: template must be one of {', '.join(names)}, got {name!r}{nearest(str(name), names)}"
        )
    table = read_toml(_TEMPLATES / f"{name}.toml")
    for key, value in given.items():
        under = table.get(key)
        # A task may replace one placeholder and keep the template's others.
        joins = isinstance(value, Mapping) and isinstance(under, Mapping)
        table[key] = {**under, **value} if joins and isinstance(under, Mapping) else value
    return table


def _required(cls: type) -> Sequence[str]:
    missing = dataclasses.MISSING
    return [
        field.name for field in dataclasses.fields(cls)
        if field.init and field.default is missing and field.default_factory is missing
    ]
