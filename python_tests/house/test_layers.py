"""Imports go down only, and ops know nothing of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from .tree import PACKAGE, ROOT, files_with, imported_modules

# Lowest first. A part may import from its own level (without a cycle) and from every level before it.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "config", "files", "callable_module", "confined_page", "_version"),
    ("ops", "tokenizer"),
    ("model", "data", "optim", "checkpoint", "device", "simt"),
    ("generate", "rlhf", "diagnosis"),
    ("train", "evaluate", "serve", "label", "report", "doctor"),
    ("quickstart",),
    ("cli", "__main__"),
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}


def part_of(module: str) -> str | None:
    """The part a dotted module belongs to: its first name below the package, None for the package itself."""
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] in LEVEL_OF else None


def python_modules() -> list[Path]:
    return [p for p in files_with(".py", under=PACKAGE) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", python_modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL_OF, f"{own} stands in no level: give it one in LEVELS"
    for module in imported_modules(path):
        other = part_of(module)
        if other is not None:
            assert LEVEL_OF[other] <= LEVEL_OF[own], f"{own} (level {LEVEL_OF[own]}) imports {module}"


def test_parts_of_one_level_have_no_cycle() -> None:
    edges: dict[str, set[str]] = {part: set() for part in LEVEL_OF}
    for path in python_modules():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        others = {part_of(m) for m in imported_modules(path)} - {None, own}
        edges[own] |= {other for other in others if other is not None}
    done: set[str] = set()
    while len(done) < len(edges):
        ready = {part for part, needs in edges.items() if part not in done and needs <= done}
        assert ready, f"these parts import each other in a circle: {sorted(set(edges) - done)}"
        done |= ready


def test_python_ops_do_not_import_each_other() -> None:
    folder = PACKAGE / "ops"
    names = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    for name in names:
        used = {m.split(".")[-1] for m in imported_modules(folder / f"{name}.py")}
        assert not (used & (names - {name})), f"ops/{name}.py imports {sorted(used & names)}"


def test_native_ops_do_not_include_each_other() -> None:
    ops = ROOT / "csrc" / "ops"
    for path in files_with(".h", ".cpp", ".cu", ".cuh", under=ops):
        own = path.parent.name
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#include") and "ops/" in line:
                assert f"ops/{own}/" in line, f"{path.relative_to(ROOT)} includes another op: {line}"


def test_a_higher_import_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule can fail: a model file that imports train is found out."""
    bad = PACKAGE / "model" / "bad.py"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding="utf-8": "from ..train import loop\n")
    modules = imported_modules(bad)
    assert "instructgpt_fast.train" in modules
    assert any(LEVEL_OF[part] > LEVEL_OF["model"] for part in map(part_of, modules) if part)
