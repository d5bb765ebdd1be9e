"""The repository as the house rules see it: its tracked files and the modules of the package."""

from __future__ import annotations

import ast
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "instructgpt_fast"


@lru_cache(maxsize=1)
def source_files() -> tuple[Path, ...]:
    """Every file that git would carry; without git (an unpacked sdist), every file outside build folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    if listing.returncode == 0:
        found = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        built = {".venv", "build", "dist", "runs", ".git"}
        found = [p for p in ROOT.rglob("*") if not built.intersection(p.relative_to(ROOT).parts)]
    return tuple(sorted(p for p in found if p.is_file()))


def files_with(*suffixes: str, under: Path = ROOT) -> list[Path]:
    """Tracked files below `under` whose names end in one of `suffixes`."""
    return [p for p in source_files() if p.suffix in suffixes and p.is_relative_to(under)]


def imported_modules(path: Path) -> set[str]:
    """Dotted names of instructgpt_fast modules that the file imports, anywhere in it, relative imports resolved."""
    module = path.relative_to(ROOT).with_suffix("").parts
    package = module[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - (node.level - 1)] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names.add(stem)
            # `from instructgpt_fast import ops` names a module in its list, not in its stem.
            names.update(f"{stem}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] == "instructgpt_fast"}
