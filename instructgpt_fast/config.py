"""Options as frozen dataclasses: checked when made, filled by presets, read from TOML, saved with the run.

TOML has no null, so an option that may be None is written as the string "none" and read back as None.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from instructgpt_fast.errors import ConfigError, InstructGPTError

T = TypeVar("T")

Marks = Mapping[str, "Marked"]


@dataclasses.dataclass(frozen=True)
class Marked:
    """A preset's value and where it stands: P printed in the paper, A in an ancestor's paper or code, O our choice."""

    value: object
    mark: str


def printed(value: object) -> Marked:
    """A number that the paper prints."""
    return Marked(value, "P")


def ancestral(value: object) -> Marked:
    """A number that an ancestor of the paper (Ziegler et al. 2019, Stiennon et al. 2020) or its code prints."""
    return Marked(value, "A")


def ours(value: object) -> Marked:
    """A number that nobody prints: our own choice."""
    return Marked(value, "O")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known name nearest to `name`, or "" when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


@cache
def field_types(cls: type) -> Mapping[str, Any]:
    """The annotated type of each option of a dataclass, with string annotations resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def options_class(
    presets: Mapping[str, Marks] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Make a class of checked options: a frozen keyword-only dataclass whose constructor raises ConfigError.

    The constructor refuses unknown names (suggesting the nearest), fills what was not given from the preset named
    by the option `preset` (a given value always wins), converts and checks types, names what is missing, and at
    last calls the class's own `check(self)` for the rules between options.
    presets: preset name -> option -> marked value; a class without the option `preset` has none.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        plain_init = made.__init__

        def checked_init(self: Any, **options: Any) -> None:
            plain_init(self, **resolve_options(type(self), options))
            self.check()

        made.__init__ = checked_init
        made.presets = dict(presets or {})
        return made

    return decorate


def resolve_options(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option of `cls` that is given or comes from the preset, each in its annotated type.

    Raises ConfigError for an unknown option or preset, a wrong type, and a required option that is missing.
    """
    known = field_types(cls)
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{cls.__name__}: unknown option {name!r}{nearest(name, known)} "
                f"The options are: {', '.join(sorted(known))}."
            )
    filled = {**preset_values(cls, options.get("preset")), **options}
    resolved = {name: convert(cls.__name__, name, value, known[name]) for name, value in filled.items()}
    required = [
        field.name for field in dataclasses.fields(cls)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in resolved]
    if missing:
        raise ConfigError(f"{cls.__name__}: {', '.join(missing)} must be given, got nothing; pass it by name.")
    return resolved


def preset_values(cls: type, preset: object) -> dict[str, object]:
    """The values that the preset gives to the options of `cls`; none for no preset. Raises ConfigError."""
    if preset in (None, "none"):
        return {}
    presets: Mapping[str, Marks] = getattr(cls, "presets", {})
    if not isinstance(preset, str) or preset not in presets:
        names = ", ".join(presets) or "none"
        raise ConfigError(
            f"{cls.__name__}: preset must be one of: {names}; got {preset!r}{nearest(str(preset), presets)}"
        )
    return {name: marked.value for name, marked in presets[preset].items()}


def convert(who: str, name: str, value: Any, annotation: Any) -> Any:
    """Return `value` in the annotated type, or raise ConfigError naming the option and both types.

    Served: bool, int, float, str, Path, Literal, tuple[T, ...], dict, and unions of these. An int is taken for a
    float and a list for a tuple; "none" is taken for None where None is allowed. Nothing else is converted.
    """
    result = _convert(value, annotation)
    if result is _REFUSED:
        raise ConfigError(f"{who}: {name} must be {describe_type(annotation)}, got {value!r}; correct the value.")
    return result


_REFUSED = object()


def _convert(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is typing.Literal:
        return value if value in arguments else _REFUSED
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return _REFUSED
        items = [_convert(item, arguments[0]) for item in value]
        return _REFUSED if any(item is _REFUSED for item in items) else tuple(items)
    if origin is dict or annotation is dict:
        return dict(value) if isinstance(value, Mapping) else _REFUSED
    return _convert_plain(value, annotation)


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if type(None) in arguments and (value is None or value == "none"):
        return None
    for argument in arguments:
        # An exact match comes before a conversion, so that 3 stays an int in `int | float`.
        if isinstance(argument, type) and type(value) is argument:
            return value
    for argument in arguments:
        if argument is not type(None):
            result = _convert(value, argument)
            if result is not _REFUSED:
                return result
    return _REFUSED


def _convert_plain(value: Any, annotation: Any) -> Any:
    if annotation is Any:
        return value
    if annotation is bool or isinstance(value, bool):
        return value if annotation is bool and isinstance(value, bool) else _REFUSED
    if annotation is float:
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else _REFUSED
    if annotation is str:
        # A path is text with another name: whoever has a Path need not convert it.
        return str(value) if isinstance(value, (str, Path)) else _REFUSED
    if annotation is Path:
        return Path(value) if isinstance(value, (str, Path)) else _REFUSED
    return value if isinstance(annotation, type) and isinstance(value, annotation) else _REFUSED


def describe_type(annotation: Any) -> str:
    """Words for an annotated type: "one of 'a', 'b'", "int or none", "a list of str"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin is tuple:
        return f"a list of {describe_type(arguments[0])}"
    if annotation is type(None):
        return "none"
    if annotation is float:
        return "a finite number"
    return str(getattr(annotation, "__name__", annotation))


def from_options(cls: type[T], options: Mapping[str, Any]) -> T:
    """Make the options class `cls` from names and values; raises ConfigError as its constructor does."""
    return cls(**resolve_options(cls, options))


def to_dict(config: Any) -> dict[str, Any]:
    """The options of a config as plain JSON values: tuples become lists and paths become text."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read options from a TOML file. Raises ConfigError naming the file when it is missing or malformed."""
    try:
        # Windows' Notepad begins a file with a byte order mark, which TOML does not know.
        return tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as cause:
        raise ConfigError(f"config: cannot read {path}: {cause.strerror}; check the path.") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"config: {path} must be TOML, got a syntax error: {cause}; correct the file.") from cause


def to_toml(config: Any) -> str:
    """Every option of a config as TOML text that `read_toml` and the constructor turn back into an equal config."""
    return "".join(f"{name} = {toml_value(value)}\n" for name, value in to_dict(config).items())


def toml_value(value: Any) -> str:
    """One value as TOML: None as "none", floats with all their digits, text as a basic string."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(ch, ch) if ch >= " " else _control(ch) for ch in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{toml_value(str(key))} = {toml_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    raise InstructGPTError(f"config: TOML holds numbers, text, lists and tables, got {type(value).__name__}.")


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\x7f": "\\u007f"}


def _control(character: str) -> str:
    return f"\\u{ord(character):04x}"


def described_options(cls: type) -> dict[str, tuple[str, str]]:
    """Option -> (its type as written, the text below it), those of the bases included; marks are in the text."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, following in zip(body.body, [*body.body[1:], None], strict=True):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = " ".join(str(following.value.value).split())
            found[node.target.id] = (ast.unparse(node.annotation), text)
    return found


class Options:
    """Base of every options class: names the stage that it belongs to and holds its presets."""

    stage: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Marks]] = {}

    def check(self) -> None:
        """Refuse combinations that cannot work; a subclass calls its parent's check first."""

    def require(self, rule: str, holds: bool, **got: object) -> None:
        """Raise ConfigError "Class: rule, got name=value" unless the rule holds."""
        if not holds:
            values = ", ".join(f"{name}={value!r}" for name, value in got.items())
            raise ConfigError(f"{type(self).__name__}: {rule}, got {values}; correct the option.")
