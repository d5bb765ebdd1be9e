"""What the documents point at exists: functions of the papers' table, links between files, commands of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt_fast.cli.command_line import COMMANDS

from .tree import ROOT, files_with

FOLDERS = (ROOT, ROOT / "docs", ROOT / "csrc" / "binding", ROOT / "csrc" / "device")
DOCUMENTS = [p for p in files_with(".md") if p.parent in FOLDERS]
REFERENCE = re.compile(r"`(instructgpt_fast/[\w/]+\.py):(\w+)`")
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path, name", REFERENCE.findall((ROOT / "docs" / "papers.md").read_text(encoding="utf-8")))
def test_the_function_of_a_paper_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), f"{path} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)  # code has ]( of its own
    for target in LINK.findall(prose):
        assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def test_the_readme_lists_every_command_with_its_summary() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        assert f"| `{name}` | {command.summary} |" in text, f"README lacks or misstates the command {name}"


def test_the_kernel_of_the_guide_compiles(tmp_path: Path) -> None:
    """As for the emulator; a word that was renamed shows here. The part that needs torch's headers is left out."""
    guide = (ROOT / "csrc" / "device" / "README.md").read_text(encoding="utf-8")
    folder = tmp_path / "ops" / "scale"
    folder.mkdir(parents=True)
    for text in re.findall(r"```cpp\n(.*?)```", guide, re.DOTALL):
        (folder / text.partition("\n")[0].removeprefix("// ")).write_text(text, encoding="utf-8")
    command = ["g++", "-std=c++20", "-fsyntax-only", "-DIGF_SIMT", "-Wall", "-Wextra", "-Werror",
               "-Wno-unknown-pragmas", f"-I{ROOT / 'csrc'}", f"-I{tmp_path}",
               "-x", "c++", str(folder / "scale_cuda.cu")]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr


@pytest.mark.parametrize("tool", ["write_measured.py", "write_options.py", "write_diagnosis.py"])
def test_a_generated_document_is_up_to_date(tool: str) -> None:
    command = [sys.executable, f"tools/{tool}", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
