"""Files a newcomer can read in one sitting, free of leftovers and of words about any one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .tree import PACKAGE, ROOT, files_with, source_files

LINES_AT_MOST = 400
KERNEL_LINES_AT_MOST = 500
CODE = (".py", ".cpp", ".h", ".cu", ".cuh")
TEXT = (*CODE, ".md", ".toml", ".txt", ".in", ".cfg", ".yml", "")

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
# Fragments are joined here so that this file does not contain what it forbids.
PRIVATE = re.compile("|".join([
    "/" + "work" + "/", "/" + "root" + "/", "/opt/" + "wheels", "pypi" + r"\.org", "files.pythonhosted" + r"\.org",
    "registry.npmjs" + r"\.org", "deb.debian" + r"\.org", "SPEC" + r"\.md", r"\.\./" + "shared",
]))


@pytest.mark.parametrize("path", files_with(*CODE), ids=lambda p: str(p.relative_to(ROOT)))
def test_length(path: Path) -> None:
    limit = KERNEL_LINES_AT_MOST if path.suffix in (".cu", ".cuh") else LINES_AT_MOST
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= limit, f"{lines} lines, at most {limit}: split it by idea"


def test_nothing_unfinished_and_nothing_private() -> None:
    here = Path(__file__).resolve()
    for path in source_files():
        if path.suffix not in TEXT or path == here:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            place = f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            assert not UNFINISHED.search(line), f"unfinished: {place}"
            assert not PRIVATE.search(line), f"a path or host of one machine: {place}"


def test_every_module_says_what_it_is() -> None:
    for path in files_with(".py", under=PACKAGE):
        assert path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""')), f"{path} has no docstring"


def test_no_file_called_utils() -> None:
    assert not [p for p in source_files() if p.stem in ("utils", "helpers", "common", "misc")]
