"""What the documents point at exists: functions of the papers' table, links between files, commands of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt_fast.cli.command_line import COMMANDS

from .tree import ROOT, files_with

DOCUMENTS = [p for p in files_with(".md") if p.parent in (ROOT, ROOT / "docs")]
REFERENCE = re.compile(r"`(instructgpt_fast/[\w/]+\.py):(\w+)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path, name", REFERENCE.findall((ROOT / "docs" / "papers.md").read_text(encoding="utf-8")))
def test_the_function_of_a_paper_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), f"{path} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def test_the_readme_lists_every_command_with_its_summary() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        assert f"| `{name}` | {command.summary} |" in text, f"README lacks or misstates the command {name}"


@pytest.mark.parametrize("tool", ["write_measured.py", "write_options.py"])
def test_a_generated_document_is_up_to_date(tool: str) -> None:
    command = [sys.executable, f"tools/{tool}", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
